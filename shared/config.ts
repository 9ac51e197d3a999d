// Configuration: one table, read once, frozen. This is the only place that looks at the environment.
//
// Each variable has a parser, a default and one sentence that says what it trades for what; README.md and .env.example
// are compared with this table by test/tidy.test.ts. All problems are reported together, and an unknown PORTOLAN_ name
// is one of them: a misspelt variable that is silently ignored is the commonest cause of an outage. Secrets may come
// from a file (`..._FILE`). Where infrastructure is not configured it is embedded, unless PORTOLAN_EMBEDDED=forbid.

import { readFileSync } from 'node:fs'
import {
  addressRanges,
  bytes,
  ConfigValueError,
  databaseUrl,
  flag,
  integer,
  isLoopback,
  type ListenAddress,
  listenAddress,
  oneOf,
  orOff,
  plain,
  publicUrl,
  regionName,
  words,
} from './config-parsers.ts'
import { nearest } from './config-spelling.ts'

export interface Variable<T> {
  readonly parse: (text: string) => T
  /** As one would write it in the environment; undefined: unset has a meaning of its own. */
  readonly default?: string
  readonly meaning: string
  readonly secret?: true
}

const variable = <T>(
  parse: (text: string) => T,
  fallback: string,
  meaning: string,
): Variable<T> & { default: string } => Object.freeze({ parse, default: fallback, meaning })
const optional = <T>(parse: (text: string) => T, meaning: string): Variable<T> =>
  Object.freeze({ parse, meaning })

const KIB = 2 ** 10
const MIB = 2 ** 20
const GIB = 2 ** 30
const DAY_SECONDS = 86_400

export const variables = Object.freeze({
  PORTOLAN_LISTEN: variable(
    listenAddress,
    'localhost:5000',
    'Address of the registry; `localhost` is both loopback families, `:5000` is every interface and then PORTOLAN_AUTH must be set.',
  ),
  PORTOLAN_METRICS_LISTEN: variable(
    orOff(listenAddress),
    'localhost:5001',
    'Address of `/metrics`, `/livez` and `/readyz`, or `off`; keep it away from clients, it tells what the registry does.',
  ),
  PORTOLAN_PUBLIC_URL: optional(
    publicUrl,
    'What clients call the registry, for the token realm; unset, the Host header (or a trusted proxy) decides, which is right unless a proxy rewrites it.',
  ),
  PORTOLAN_TRUSTED_PROXIES: variable(
    addressRanges,
    '',
    'Address ranges whose Forwarded and X-Forwarded-* headers count; anyone else could forge them, so the default is nobody.',
  ),
  PORTOLAN_REGION: variable(
    regionName,
    'eu',
    'Name of this region; it is in every version written, so it never changes for a database.',
  ),
  PORTOLAN_DATA_DIR: variable(
    plain,
    '.portolan',
    'Directory of what is embedded (Postgres) and of blobs; each region has a folder in it.',
  ),
  PORTOLAN_DATABASE_URL: Object.freeze({
    ...optional(
      databaseUrl,
      'Postgres 15 to 18 of this region, by a direct connection or a session pooler; unset, an embedded Postgres runs in the data directory.',
    ),
    secret: true as const,
  }),
  PORTOLAN_DATABASE_CONNECTIONS: variable(
    integer({ min: 2, max: 100 }),
    '8',
    'Connections each process keeps for writes; more than the database has cores mostly adds waiting.',
  ),
  PORTOLAN_EMBEDDED: variable(
    oneOf('allow', 'forbid'),
    'allow',
    '`forbid` makes a missing PORTOLAN_DATABASE_URL an error instead of starting an embedded Postgres: set it in production.',
  ),
  PORTOLAN_PROCESSES: variable(
    integer({ min: 1, max: 64 }),
    '1',
    'API processes on the one port, where the system can share it (Linux); one per core serves more, each with caches of its own.',
  ),
  PORTOLAN_AUTH: optional(
    oneOf('none', 'accounts'),
    '`none` lets everybody do everything, `accounts` asks for a name in PORTOLAN_HTPASSWD_FILE; unset is `none` on loopback and an error elsewhere.',
  ),
  PORTOLAN_HTPASSWD_FILE: optional(
    plain,
    'File of accounts as `htpasswd -B` writes it; changes are taken up within a second.',
  ),
  PORTOLAN_ANONYMOUS_PULL: variable(
    flag,
    'false',
    'With accounts, `true` lets everybody pull everything and list the catalog; pushing still needs an account.',
  ),
  PORTOLAN_ADMINS: variable(words, '', 'Comma-separated accounts that may use `/api/v1`.'),
  PORTOLAN_TOKEN_TTL_SECONDS: variable(
    integer({ min: 60, max: 3600 }),
    '300',
    'Life of an access token; shorter revokes sooner, longer asks for fewer tokens.',
  ),
  PORTOLAN_SPARSE: variable(
    oneOf('none', 'index', 'all'),
    'none',
    'What a manifest may refer to without having it: nothing, an index its children, or an image its blobs too; mirrors of parts need it, everyone else is safer without.',
  ),
  PORTOLAN_DELETE: variable(
    flag,
    'true',
    '`false` answers every delete of tags, manifests and blobs with 405.',
  ),
  PORTOLAN_UPLOAD_TTL_SECONDS: variable(
    integer({ min: 60, max: 30 * DAY_SECONDS }),
    '604800',
    'How long an upload may rest before its bytes are dropped.',
  ),
  PORTOLAN_UPLOADS_PER_REPOSITORY_MAX: variable(
    integer({ min: 1, max: 100_000 }),
    '1000',
    'Open uploads in one repository; more are answered 429.',
  ),
  PORTOLAN_ORPHAN_GRACE_SECONDS: variable(
    integer({ min: 1, max: 90 * DAY_SECONDS }),
    '172800',
    'Age at which bytes that no row names are removed; must be longer than any upload takes.',
  ),
  PORTOLAN_SWEEP_SECONDS: variable(
    integer({ min: 1, max: DAY_SECONDS }),
    '300',
    'How often the janitor looks for expired uploads and orphans.',
  ),
  PORTOLAN_FREE_BYTES_MIN: variable(
    bytes({ min: 0, max: 2 ** 50 }),
    '256MiB',
    'Free space under which uploads are answered 503 while pulls go on.',
  ),
  PORTOLAN_CACHE_BYTES: variable(
    bytes({ min: MIB, max: 64 * GIB }),
    '128MiB',
    'Memory of each process for manifests and small blobs; more keeps more pulls away from the disk.',
  ),
  PORTOLAN_READ_BUFFER_BYTES: variable(
    bytes({ min: 2 * MIB, max: 4 * GIB }),
    '64MiB',
    'Memory of each process for blobs on their way to clients, however many clients there are.',
  ),
  PORTOLAN_RATE_BYTES_PER_SECOND_MIN: variable(
    bytes({ min: 0, max: GIB }),
    '1KiB',
    'A client that stays slower than this for a whole window is cut off, up or down; 0 never cuts.',
  ),
  PORTOLAN_RATE_WINDOW_SECONDS: variable(
    integer({ min: 1, max: 3600 }),
    '60',
    'The window of the minimum rate: a pause of this length is allowed.',
  ),
  PORTOLAN_LOG_LEVEL: variable(
    oneOf('debug', 'info', 'warn', 'error'),
    'info',
    '`info` has a line per request, `warn` only trouble.',
  ),
  PORTOLAN_DRAIN_SECONDS: variable(
    integer({ min: 0, max: 3600 }),
    '30',
    'How long a stopping process lets requests under way finish.',
  ),
} satisfies Record<string, Variable<unknown>>)

export type VariableName = keyof typeof variables

export interface Config {
  readonly listen: ListenAddress
  readonly metricsListen: ListenAddress | undefined
  readonly publicUrl: string | undefined
  readonly trustedProxies: readonly string[]
  readonly region: string
  readonly dataDir: string
  readonly database: { readonly url: string | undefined; readonly connections: number }
  readonly processes: number
  /** Set by the parent of several API processes: this is one of them and shares the port. */
  readonly child: boolean
  readonly auth: {
    readonly mode: 'none' | 'accounts'
    readonly htpasswdFile: string | undefined
    readonly anonymousPull: boolean
    readonly admins: readonly string[]
    readonly tokenTtlSeconds: number
  }
  readonly registry: {
    readonly sparse: 'none' | 'index' | 'all'
    readonly deletes: boolean
    readonly uploadTtlSeconds: number
    readonly uploadsPerRepositoryMax: number
  }
  readonly janitor: { readonly orphanGraceSeconds: number; readonly sweepSeconds: number }
  readonly bytes: {
    readonly freeMin: number
    readonly cache: number
    readonly readBuffer: number
    readonly ratePerSecondMin: number
    readonly rateWindowSeconds: number
  }
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error'
  readonly drainSeconds: number
}

export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(
      `The configuration has ${problems.length === 1 ? 'a problem' : 'problems'}:\n  ${problems.join('\n  ')}`,
    )
    this.problems = problems
  }
}

/** Not for operators: how a parent tells its API processes what they are. */
const CHILD = 'PORTOLAN_CHILD'

type Environment = Readonly<Record<string, string | undefined>>

/** @throws ConfigError with every problem there is. */
export function loadConfig(environment: Environment): Config {
  const problems: string[] = unknownNames(environment)
  const read = <Name extends VariableName>(name: Name): Value<Name> => {
    const definition: Variable<unknown> = variables[name]
    try {
      const text = textOf(environment, name, definition) ?? definition.default
      return (text === undefined ? undefined : definition.parse(text)) as Value<Name>
    } catch (thrown) {
      if (!(thrown instanceof ConfigValueError)) throw thrown
      problems.push(`${name} ${thrown.message}`)
      return undefined as Value<Name>
    }
  }
  const auth = read('PORTOLAN_AUTH')
  const config: Config = {
    listen: read('PORTOLAN_LISTEN'),
    metricsListen: read('PORTOLAN_METRICS_LISTEN'),
    publicUrl: read('PORTOLAN_PUBLIC_URL'),
    trustedProxies: read('PORTOLAN_TRUSTED_PROXIES'),
    region: read('PORTOLAN_REGION'),
    dataDir: read('PORTOLAN_DATA_DIR'),
    database: { url: read('PORTOLAN_DATABASE_URL'), connections: read('PORTOLAN_DATABASE_CONNECTIONS') },
    processes: read('PORTOLAN_PROCESSES'),
    child: environment[CHILD] === 'true',
    auth: {
      mode: auth ?? 'none',
      htpasswdFile: read('PORTOLAN_HTPASSWD_FILE'),
      anonymousPull: read('PORTOLAN_ANONYMOUS_PULL'),
      admins: read('PORTOLAN_ADMINS'),
      tokenTtlSeconds: read('PORTOLAN_TOKEN_TTL_SECONDS'),
    },
    registry: {
      sparse: read('PORTOLAN_SPARSE'),
      deletes: read('PORTOLAN_DELETE'),
      uploadTtlSeconds: read('PORTOLAN_UPLOAD_TTL_SECONDS'),
      uploadsPerRepositoryMax: read('PORTOLAN_UPLOADS_PER_REPOSITORY_MAX'),
    },
    janitor: {
      orphanGraceSeconds: read('PORTOLAN_ORPHAN_GRACE_SECONDS'),
      sweepSeconds: read('PORTOLAN_SWEEP_SECONDS'),
    },
    bytes: {
      freeMin: read('PORTOLAN_FREE_BYTES_MIN'),
      cache: read('PORTOLAN_CACHE_BYTES'),
      readBuffer: read('PORTOLAN_READ_BUFFER_BYTES'),
      ratePerSecondMin: read('PORTOLAN_RATE_BYTES_PER_SECOND_MIN'),
      rateWindowSeconds: read('PORTOLAN_RATE_WINDOW_SECONDS'),
    },
    logLevel: read('PORTOLAN_LOG_LEVEL'),
    drainSeconds: read('PORTOLAN_DRAIN_SECONDS'),
  }
  if (problems.length === 0) {
    problems.push(
      ...contradictions(config, { authSaid: auth !== undefined, embedded: read('PORTOLAN_EMBEDDED') }),
    )
  }
  if (problems.length > 0) throw new ConfigError(problems)
  return deepFreeze(config)
}

type Value<Name extends VariableName> = (typeof variables)[Name] extends { default: string }
  ? ReturnType<(typeof variables)[Name]['parse']>
  : ReturnType<(typeof variables)[Name]['parse']> | undefined

const SECRET_FILE_BYTES_MAX = 64 * KIB

function textOf(environment: Environment, name: string, definition: Variable<unknown>): string | undefined {
  const text = environment[name]
  const path = definition.secret === true ? environment[`${name}_FILE`] : undefined
  if (path === undefined) return text === '' && definition.default === undefined ? undefined : text
  if (text !== undefined) throw new ConfigValueError(`and ${name}_FILE are both set: choose one`)
  try {
    const content = readFileSync(path, 'utf8')
    if (content.length > SECRET_FILE_BYTES_MAX)
      throw new ConfigValueError(`_FILE names a file that is too large`)
    return content.trim()
  } catch (thrown) {
    if (thrown instanceof ConfigValueError) throw thrown
    throw new ConfigValueError(`_FILE names a file that cannot be read: ${(thrown as Error).message}`)
  }
}

function contradictions(config: Config, said: { authSaid: boolean; embedded: string }): string[] {
  const problems: string[] = []
  if (!said.authSaid && !isLoopback(config.listen.host)) {
    problems.push(
      'PORTOLAN_LISTEN is reachable from other machines: set PORTOLAN_AUTH=accounts, or PORTOLAN_AUTH=none if everybody who reaches it may push and delete',
    )
  }
  if (config.auth.mode === 'accounts' && config.auth.htpasswdFile === undefined) {
    problems.push('PORTOLAN_AUTH=accounts needs PORTOLAN_HTPASSWD_FILE (make one with `htpasswd -Bc`)')
  }
  if (said.embedded === 'forbid' && config.database.url === undefined) {
    problems.push('PORTOLAN_EMBEDDED=forbid needs PORTOLAN_DATABASE_URL')
  }
  return problems
}

function unknownNames(environment: Environment): string[] {
  const known = new Set<string>([CHILD, ...Object.keys(variables)])
  for (const [name, { secret }] of Object.entries<Variable<unknown>>(variables))
    if (secret) known.add(`${name}_FILE`)
  return Object.keys(environment)
    .filter((name) => name.startsWith('PORTOLAN_') && !name.startsWith('PORTOLAN_CI_') && !known.has(name))
    .map((name) => `${name} is unknown; the nearest name is ${nearest(name, [...known])}`)
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) if (typeof inner === 'object' && inner !== null) deepFreeze(inner)
  return Object.freeze(value)
}
