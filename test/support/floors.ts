// The import rules as tables: the layers of the tree, the owner of each package, and the exceptions with their reasons.
// test/tidy.test.ts applies them. An unused exception is an error, so obsolete entries are removed.

export interface Source {
  readonly path: string
  readonly text: string
}

export interface Import {
  readonly specifier: string
  /** A path in the tree, or undefined for packages and Node's built-in modules. */
  readonly target: string | undefined
  /** A type-only import, which is erased before the program runs. */
  readonly typeOnly: boolean
}

const STATEMENT =
  /^(?:import|export)\s+(type\b)?([^'";]*?)from\s+'([^']+)'|^import\s+'([^']+)'|\bimport\('([^']+)'\)/gm

export function importsOf({ path, text }: Source): Import[] {
  return [...text.matchAll(STATEMENT)].map(([, type, names = '', from, bare, dynamic]) => {
    const specifier = from ?? bare ?? dynamic ?? ''
    const listed = /^\s*\{([^}]*)\}\s*$/
      .exec(names)?.[1]
      ?.split(',')
      .filter((name) => name.trim() !== '')
    const allTypes = listed?.every((name) => name.trim().startsWith('type ')) === true
    return { specifier, target: resolve(path, specifier), typeOnly: type !== undefined || allTypes }
  })
}

function resolve(from: string, specifier: string): string | undefined {
  if (specifier.startsWith('#shared/')) return specifier.slice(1)
  if (!specifier.startsWith('.')) return undefined
  const parts = from.split('/').slice(0, -1)
  for (const part of specifier.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '.') parts.push(part)
  }
  return parts.join('/')
}

/** No I/O, no clock, no randomness. */
export const CORE = /^shared\/(oci\/|convergence\/|events\/|errors\.ts)/
/** Small modules that any adapter may use. */
const GROUND = /^shared\/(loop|pause|service|failpoints)\.ts$/
const ADAPTER = /^shared\/(config|db|blobs|bus|peers|auth|observability|embedded|outbound|secrets)\//
/** Opens the adapters and imports no use case. */
const REGION = /^shared\/region(-database|-stores)?\.ts$/
const USE_CASE = /^shared\/(registry|replication|webhooks|scans)\//
const ROUTE = /^services\/api\/(v2\/|admin\/|peer\/|token\.ts|health\.ts)/

/** Adapters that import each other, and why. */
const SIBLINGS: Readonly<Record<string, string>> = {
  'db > blobs': 'a row names a store and a key, whose types live there',
  'db > secrets': 'secret values are sealed before they are written to a row',
  'db > config': 'a secret that cannot be unsealed is a configuration error: ConfigError',
  'db > observability': 'the type of the log',
  'bus > observability': 'the type of the log',
  'peers > auth': 'requests between regions are signed',
}

/** Use cases that import other use cases. */
const DOWNWARDS: Readonly<Record<string, string>> = {
  'replication > registry': 'replicated content is stored like a push',
}

/** Routes that query tables directly instead of calling a use case. */
const ROUTES_WITH_TABLES: Readonly<Record<string, string>> = {
  'services/api/admin/deliveries.ts': 'the list of deliveries returns rows unchanged',
  'services/api/admin/event-pages.ts': 'the feed returns pages of the log unchanged',
  'services/api/admin/regions.ts': 'shows only the row of the region',
  'services/api/peer/log.ts': 'records the position of the reader',
}

export interface Complaint {
  readonly text: string
  /** The exception that allows the import, if any. */
  readonly excused?: string
}

/** Returns the imports of this file that violate the layers. */
export function floorComplaints(source: Source): Complaint[] {
  const { path } = source
  return importsOf(source).flatMap(({ target, typeOnly }) => {
    if (path.startsWith('test/') || target === undefined) return []
    const text = `imports ${target}`
    if (ROUTE.test(path) && target.startsWith('shared/db/') && !typeOnly)
      return [{ text, ...(path in ROUTES_WITH_TABLES && { excused: path }) }]
    if (allows(path, target, typeOnly)) return []
    const pair = `${folder(path)} > ${folder(target)}`
    return [{ text, ...((pair in SIBLINGS || pair in DOWNWARDS) && { excused: pair }) }]
  })
}

export const EXCEPTIONS: readonly string[] = [...Object.keys(SIBLINGS), ...Object.keys(ROUTES_WITH_TABLES)]

function allows(path: string, target: string, typeOnly: boolean): boolean {
  if (CORE.test(path)) return CORE.test(target)
  const own = folder(path) === folder(target)
  if (GROUND.test(path)) return CORE.test(target) || GROUND.test(target)
  if (ADAPTER.test(path)) {
    const configTypes = typeOnly && target.startsWith('shared/config/')
    return own || configTypes || CORE.test(target) || GROUND.test(target)
  }
  const below = CORE.test(target) || GROUND.test(target) || ADAPTER.test(target)
  if (REGION.test(path)) return below || REGION.test(target)
  if (USE_CASE.test(path)) return own || below || (typeOnly && REGION.test(target))
  if (/^services\/[^/]+\.ts$/.test(path)) return true
  if (path.startsWith('services/'))
    return target.startsWith('shared/') || target.split('/')[1] === path.split('/')[1]
  return false
}

function folder(path: string): string {
  return path.split('/')[1] ?? path
}

/** Each package and the files that may import it. An unlisted package may not be imported. */
const OWNERS: Readonly<Record<string, RegExp>> = {
  '@aws-sdk/client-s3': /^(shared\/blobs\/objects\/s3-service\.ts|test\/)/,
  '@aws-sdk/s3-request-presigner': /^test\//,
  '@azure/identity': /^shared\/blobs\/objects\/azure-service\.ts/,
  '@azure/storage-blob': /^shared\/blobs\/objects\/azure-service\.ts/,
  '@google-cloud/storage': /^shared\/blobs\/objects\/gcs-service\.ts/,
  '@smithy/node-http-handler': /^shared\/blobs\/objects\/s3-service\.ts/,
  '@fastify/swagger': /^services\/api\/admin\//,
  '@seriousme/openapi-schema-validator': /^test\//,
  'ajv/dist/2020.js': /^(services\/api\/admin\/schema-compilers\.ts|test\/)/,
  bcrypt: /^(shared\/auth\/|test\/)/,
  'fast-check': /^test\//,
  'fast-json-stringify': /^services\/api\/admin\/schema-compilers\.ts/,
  fastify: /^services\/api\//,
  'ipaddr.js': /^shared\/(auth\/|outbound\/|config\/parsers\.ts)/,
  jose: /^(shared\/auth\/|test\/)/,
  kafkajs: /^(shared\/bus\/kafka-(bus|topic)\.ts|test\/)/,
  'lru-cache': /^shared\/(auth|blobs|db|registry)\//,
  pg: /^(shared\/db\/|test\/)/,
  pino: /^shared\/observability\//,
  'prom-client': /^shared\/observability\//,
  standardwebhooks: /^test\//,
  typebox: /^services\/api\/admin\//,
}

/** Node's built-in modules. Any file may use those that only compute; I/O modules are limited to certain layers. */
const BUILTINS: Readonly<Record<string, RegExp>> = {
  'node:crypto': /./,
  'node:util': /./,
  // The only way to reach V8's garbage collector without a flag on every command line.
  'node:vm': /^services\/idle-memory\.ts$/,
}
const NETWORK = /^node:(child_process|dns|http|https|http2|net|tls|dgram)(\/|$)/
const NETWORKED = /^(services\/|shared\/(blobs|bus|config|db|embedded|observability|outbound|peers)\/|test\/)/
/** All layers except the core and the use cases. */
const ADAPTING =
  /^(services\/|shared\/(config|db|blobs|bus|peers|auth|observability|embedded|outbound|secrets)\/|test\/)/
const NEVER = /^node:(cluster|inspector|process|repl|wasi|worker_threads)(\/|$)/

/** Returns the packages and modules that this file imports but may not. */
export function ownerComplaints(source: Source): string[] {
  const { path } = source
  return importsOf(source)
    .filter(({ target, specifier }) => target === undefined && !mayImport(path, specifier))
    .map(({ specifier }) => `imports ${specifier}`)
}

function mayImport(path: string, specifier: string): boolean {
  if (!specifier.startsWith('node:')) return OWNERS[specifier]?.test(path) === true
  if (NEVER.test(specifier)) return false
  const builtin = BUILTINS[specifier]
  if (builtin !== undefined) return builtin.test(path)
  if (NETWORK.test(specifier)) return NETWORKED.test(path)
  // A region opens files in its data directory.
  if (specifier === 'node:path') return ADAPTING.test(path) || REGION.test(path)
  return ADAPTING.test(path) || (specifier === 'node:timers/promises' && GROUND.test(path))
}

/** Returns uses of the clock, randomness and the process. The core gets these as arguments. */
export function purityComplaints({ path, text }: Source): string[] {
  if (!CORE.test(path)) return []
  const code = text.replace(/^\s*(?:\/\/|\/?\*).*$/gm, '')
  const found = code.match(
    /\bDate\.now\b|\bnew Date\(\)|\bMath\.random\b|\brandom(?:Bytes|UUID|Int|FillSync)\b|\bgetRandomValues\b|\bprocess\b|\bperformance\b|\bset(?:Timeout|Interval|Immediate)\b|\bfetch\(|\bglobalThis\b/g,
  )
  return (found ?? []).map((name) => `uses ${name}`)
}
