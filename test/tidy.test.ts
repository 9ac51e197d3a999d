// The tree's own rules, as tests: layers, one owner per package, no state at module scope, prose at the head of every
// file, documents that equal the code they describe. A rule is a function from a file to complaints, and each is
// shown a bad example first: a rule that cannot complain is worth nothing.

import assert from 'node:assert/strict'
import { glob, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { configurationLists, environmentExample, shortTable } from '#shared/config/describe.ts'
import { errorTable } from '#shared/errors.ts'

const root = join(import.meta.dirname, '..')

interface Source {
  readonly path: string
  readonly text: string
}

type Rule = (source: Source) => string[]

/** Longer than this needs a sentence. */
const LINES_MAX = 400
const LONG_FILES: Readonly<Record<string, string>> = {}

/** Files of shared/ without a test of the same name, and why. */
const TESTED_ELSEWHERE: Readonly<Record<string, string>> = {
  'shared/service.ts': 'a type',
  'shared/region-database.ts': 'test/shared/region.test.ts and every test that opens a region',
  'shared/region-stores.ts': 'test/services/janitor/store-owner.test.ts and test/stores/start.test.ts',
  'shared/registry/registry.ts': 'every test that pushes or pulls',
  ...Object.fromEntries(
    [
      'auth',
      'blobs',
      'database',
      'events',
      'janitor',
      'kafka',
      'limits',
      'parsers',
      'peers',
      'server',
      'variable',
      'webhooks',
    ].map((name) => [`shared/config/${name}.ts`, 'test/shared/config/load.test.ts']),
  ),
  'shared/blobs/lost-session.ts':
    'test/services/api/v2/commit-proof.test.ts and test/stores/lost-objects.test.ts',
  'shared/registry/settle-blob.ts': 'test/faults/api/lost-blobs.test.ts',
  'shared/blobs/files/volumes.ts': 'test/services/api/v2/free-space.test.ts',
  'shared/blobs/objects/object-service.ts':
    'the port; its three implementations keep test/contract/blob-store.ts',
  'shared/blobs/objects/object-read.ts': 'test/stores/faults.test.ts',
  'shared/blobs/open-store.ts': 'test/stores/move-blobs.test.ts and every region',
  'shared/blobs/objects/part-attempt.ts': 'test/stores/contract.test.ts',
  'shared/blobs/objects/part-session.ts': 'test/stores/contract.test.ts',
  'shared/blobs/objects/part-store.ts': 'test/stores/contract.test.ts and test/stores/faults.test.ts',
  'shared/blobs/objects/s3-service.ts':
    'test/stores/contract.test.ts and test/shared/blobs/objects/store-failures.test.ts',
  'shared/blobs/objects/gcs-service.ts':
    'test/stores/contract.test.ts and test/shared/blobs/objects/store-failures.test.ts',
  'shared/blobs/objects/azure-service.ts':
    'test/stores/contract.test.ts and test/shared/blobs/objects/store-failures.test.ts',
  'shared/blobs/objects/s3-presign.ts': 'test/stores/links.test.ts',
  'services/move-blobs/move-blobs.ts': 'test/stores/move-blobs.test.ts',
  'shared/blobs/waiting-line.ts':
    'test/shared/blobs/byte-budget.test.ts and test/shared/blobs/objects/part-buffers.test.ts',
  'shared/blobs/files/write-once-file.ts': 'test/shared/blobs/files/file-store.test.ts',
  'shared/blobs/files/directory-sync.ts': 'test/shared/blobs/files/file-store.test.ts',
  'shared/blobs/files/file-pump.ts': 'test/shared/blobs/files/file-store.test.ts',
  'shared/registry/mount-blob.ts': 'test/services/api/v2/uploads.test.ts',
  'shared/registry/keep-attempt.ts': 'test/services/janitor/sweep-limits.test.ts',
  'shared/blobs/ownership.ts': 'test/services/janitor/store-owner.test.ts and test/stores/owner.test.ts',
  'shared/db/store-owner.ts': 'test/services/janitor/store-owner.test.ts',
  'shared/db/blob-keys.ts': 'test/services/janitor/sweep-limits.test.ts',
  'shared/blobs/blob-store.ts': 'the interface; test/contract/blob-store.ts is its test',
  'shared/db/provenance.ts': 'a type and its columns, seen in test/shared/db/registers.test.ts',
  'shared/convergence/registers.ts': 'test/simulation/simulation.test.ts',
  'shared/convergence/visibility.ts': 'test/simulation/simulation.test.ts',
  'shared/convergence/conflicts.ts': 'test/simulation/simulation.test.ts',
  'shared/convergence/forgetting.ts': 'test/simulation/simulation.test.ts',
  'shared/bus/bus.ts': 'the interface; test/contract/bus.ts is its test',
  'shared/bus/hand-over.ts': 'test/contract/bus.ts',
  'shared/bus/in-order.ts': 'test/shared/bus/follow.test.ts',
  'shared/bus/kafka-bus.ts': 'test/kafka/contract.test.ts and test/kafka/faults.test.ts',
  'shared/bus/deadline.ts': 'test/kafka/faults.test.ts',
  'shared/bus/kafka-topic.ts': 'test/kafka/faults.test.ts',
  'shared/bus/open-kafka.ts': 'test/kafka/secure.test.ts',
  'shared/events/log-pages.ts': 'an interface',
  'shared/registry/log-pages.ts': 'test/shared/bus/log-bus.test.ts and test/shared/bus/follow.test.ts',
  'shared/db/shard-log.ts': 'test/shared/bus/log-bus.test.ts and test/services/relay/trim.test.ts',
  'shared/db/event-cursors.ts':
    'test/services/webhooks/webhooks.test.ts and test/services/relay/trim.test.ts',
  'shared/db/pull-events.ts':
    'test/shared/registry/pull-counter.test.ts and test/services/api/admin/events.test.ts',
  'shared/db/log-readers.ts': 'test/services/api/peer/log.test.ts and test/services/relay/trim.test.ts',
  'shared/peers/remote-log-pages.ts': 'test/services/api/peer/log.test.ts',
  'shared/db/peer-cursors.ts': 'test/shared/replication/receive-events.test.ts',
  'shared/db/region.ts': 'test/shared/db/migrate.test.ts and test/services/relay/relay.test.ts',
  'shared/db/settings.ts': 'test/services/webhooks/webhooks.test.ts',
  'shared/db/webhook-deliveries.ts': 'test/services/webhooks/webhooks.test.ts',
  'shared/db/stored-secrets.ts': 'test/shared/db/seal-stored-secrets.test.ts',
  'shared/webhooks/subscriptions.ts': 'test/services/webhooks/webhooks.test.ts',
  'shared/db/event-log.ts': 'test/services/relay/relay.test.ts and test/services/api/admin/events.test.ts',
  'shared/db/lookups.ts': 'test/shared/db/registers.test.ts and every pull',
  'shared/db/push-manifest.ts': 'test/shared/db/registers.test.ts and test/shared/db/races.test.ts',
  'shared/db/memberships.ts': 'test/shared/db/registers.test.ts and test/shared/db/races.test.ts',
  'shared/db/tags.ts': 'test/shared/db/registers.test.ts',
  'shared/db/repositories.ts': 'test/shared/db/registers.test.ts',
  'shared/db/manifests.ts': 'test/services/api/v2/referrers.test.ts and every pull',
  'shared/db/blobs.ts': 'test/services/api/v2/uploads.test.ts',
  'shared/db/uploads.ts': 'test/services/api/v2/uploads.test.ts',
  'shared/db/signing-keys.ts': 'test/services/api/auth.test.ts',
  'shared/db/outage.ts': 'test/faults/outage.test.ts',
  'shared/db/first-contact.ts': 'test/services/main.test.ts',
  'shared/embedded/binaries.ts': 'test/shared/embedded/postgres.test.ts',
  'shared/embedded/cluster.ts': 'test/shared/embedded/postgres.test.ts',
  'shared/embedded/directory-lock.ts': 'test/faults/embedded/directory-lock.test.ts',
  'shared/embedded/if-there.ts': 'test/shared/embedded/postgres.test.ts',
  'shared/embedded/owner.ts': 'test/shared/embedded/postgres.test.ts',
  'shared/embedded/postmaster.ts': 'test/shared/embedded/postgres.test.ts',
  'shared/embedded/server-lock.ts': 'test/shared/embedded/postgres.test.ts',
  'shared/embedded/durable-directory.ts': 'test/shared/embedded/postgres.test.ts',
  'shared/embedded/server-log.ts': 'test/shared/embedded/postgres.test.ts',
  'shared/failpoints.ts': 'test/faults/api/crash.test.ts',
  'shared/registry/push-blob.ts': 'test/services/api/v2/uploads.test.ts',
  'shared/registry/push-manifest.ts': 'test/services/api/v2/push-pull.test.ts',
  'shared/registry/pull.ts': 'test/services/api/v2/push-pull.test.ts',
  'shared/registry/remove.ts': 'test/services/api/v2/push-pull.test.ts',
  'shared/registry/list.ts': 'test/services/api/v2/lists.test.ts',
  'shared/observability/probe-server.ts': 'test/services/main.test.ts',
  'shared/observability/listen.ts': 'test/services/main.test.ts',
}

const OWNERS: Readonly<Record<string, RegExp>> = {
  '@aws-sdk/client-s3': /^(shared\/blobs\/objects\/s3-service\.ts|test\/)/,
  '@smithy/node-http-handler': /^shared\/blobs\/objects\/s3-service\.ts/,
  '@aws-sdk/s3-request-presigner': /^test\//,
  '@google-cloud/storage': /^shared\/blobs\/objects\/gcs-service\.ts/,
  '@azure/storage-blob': /^shared\/blobs\/objects\/azure-service\.ts/,
  '@azure/identity': /^shared\/blobs\/objects\/azure-service\.ts/,
  pg: /^(shared\/db\/|test\/)/,
  kafkajs: /^(shared\/bus\/kafka-(bus|topic)\.ts|test\/)/,
  fastify: /^services\/api\//,
  bcrypt: /^(shared\/auth\/|test\/)/,
  jose: /^(shared\/auth\/|test\/)/,
  pino: /^shared\/observability\//,
  'prom-client': /^shared\/observability\//,
  'ipaddr.js': /^shared\/(auth\/|outbound\/|config\/parsers\.ts)/,
  'lru-cache': /^shared\//,
  'ajv/dist/2020.js': /^test\//,
  standardwebhooks: /^test\//,
  'fast-check': /^test\//,
}

const rules: Readonly<Record<string, { rule: Rule; bad: Source }>> = {
  'imports point down': {
    rule: layers,
    bad: file('shared/oci/x.ts', "import a from '#shared/db/connect.ts'"),
  },
  'a region knows no use-case': {
    rule: layers,
    bad: file('shared/region.ts', "import a from './registry/pull-counter.ts'"),
  },
  'services never import each other': {
    rule: layers,
    bad: file('services/api/x.ts', "import a from '../janitor/service.ts'"),
  },
  'each package has one owner': {
    rule: owners,
    bad: file('services/api/x.ts', "import pg from 'pg'"),
  },
  'nothing lives at module scope': {
    rule: moduleState,
    bad: file('shared/db/x.ts', 'const cache = new Map()'),
  },
  'the environment is read in one place': {
    rule: environment,
    bad: file('shared/db/x.ts', 'process.env.HOME'),
  },
  'every file opens with prose': {
    rule: header,
    bad: file('shared/db/x.ts', "import x from './y.ts'\n"),
  },
  'files are one idea long': {
    rule: length,
    bad: file('shared/db/x.ts', '// a\n'.repeat(LINES_MAX + 1)),
  },
  'nothing is left lying about': {
    rule: leftovers,
    bad: file('shared/db/x.ts', `// ${'TO'}DO later`),
  },
  'names say something': { rule: names, bad: file('shared/db/utils.ts', '') },
}

function file(path: string, text: string): Source {
  return { path, text }
}

function importsOf({ text }: Source): string[] {
  return [...text.matchAll(/^(?:import|export)\b[^'"]*?from '([^']+)'|\bimport\('([^']+)'\)/gm)].map(
    (match) => match[1] ?? match[2] ?? '',
  )
}

/** A path in the tree for relative and #shared imports; undefined for packages. */
function resolved(from: string, specifier: string): string | undefined {
  if (specifier.startsWith('#shared/')) return specifier.slice(1)
  if (!specifier.startsWith('.')) return undefined
  return join(from, '..', specifier)
}

const CORE = /^shared\/(oci\/|convergence\/|events\/|errors\.ts)/
const ADAPTERS =
  /^shared\/(config|db|blobs|bus|peers|auth|observability|embedded|outbound|secrets)\/|^shared\/(loop|service|failpoints)\.ts/
/** Makes the adapters; knows no use-case. */
const CONSTRUCTION = /^shared\/region(-database|-stores)?\.ts/
const USE_CASES = /^shared\/(registry|replication|webhooks)\//

function layers(source: Source): string[] {
  const { path } = source
  if (path.startsWith('test/')) return []
  const allowed = (target: string): boolean => {
    if (CORE.test(path)) return CORE.test(target)
    if (ADAPTERS.test(path)) return CORE.test(target) || ADAPTERS.test(target)
    if (CONSTRUCTION.test(path)) return [CORE, ADAPTERS, CONSTRUCTION].some((floor) => floor.test(target))
    if (USE_CASES.test(path)) return !target.startsWith('services/')
    if (/^services\/[^/]+\.ts$/.test(path)) return true
    const own = path.split('/').slice(0, 2).join('/')
    return target.startsWith('shared/') || target.startsWith(`${own}/`)
  }
  return importsOf(source)
    .map((specifier) => resolved(path, specifier))
    .filter((target) => target !== undefined && !allowed(target))
    .map((target) => `imports ${target}`)
}

function owners(source: Source): string[] {
  return importsOf(source)
    .filter((specifier) => OWNERS[specifier] && !OWNERS[specifier].test(source.path))
    .map((specifier) => `imports ${specifier}`)
}

function moduleState({ path, text }: Source): string[] {
  if (path.startsWith('test/')) return []
  const lines = text.split('\n')
  return lines.filter((line) =>
    /^(?:export )?let |^(?:export )?(?:const|var) .*= new (?:Weak)?(?:Map|Set)\(\)/.test(line),
  )
}

function environment({ path, text }: Source): string[] {
  if (path.startsWith('test/') || path === 'services/main.ts' || path === 'services/processes.ts') return []
  return text.includes('process.env') ? ['reads process.env'] : []
}

function header({ path, text }: Source): string[] {
  if (path.endsWith('.test.ts')) return []
  return /^\/\/ .{20,}/.test(text) ? [] : ['has no opening comment']
}

function length({ path, text }: Source): string[] {
  const lines = text.split('\n').length
  return lines > LINES_MAX && LONG_FILES[path] === undefined ? [`has ${lines} lines`] : []
}

function leftovers({ path, text }: Source): string[] {
  if (path === 'test/tidy.test.ts') return []
  return text.match(/\b(?:TODO|FIXME|XXX)\b|\bdebugger\b|\bconsole\.|@ts-(?:ignore|expect-error)/g) ?? []
}

function names({ path }: Source): string[] {
  return /(?:^|\/)(?:utils?|helpers?|types|common|index|misc)\.ts$/.test(path)
    ? ['has a name that says nothing']
    : []
}

const sources: Source[] = []
for await (const path of glob('{services,shared,test}/**/*.{ts,js}', {
  cwd: root,
})) {
  sources.push({ path, text: await readFile(join(root, path), 'utf8') })
}

describe('tidy', () => {
  for (const [name, { rule, bad }] of Object.entries(rules)) {
    test(name, () => {
      assert.notDeepEqual(rule(bad), [], 'the rule must refuse its bad example')
      const complaints = sources.flatMap((source) =>
        rule(source).map((complaint) => `${source.path}: ${complaint}`),
      )
      assert.deepEqual(complaints, [])
    })
  }

  test('every file of shared/ has its test, or says where it is tested', () => {
    const paths = new Set(sources.map(({ path }) => path))
    const shared = [...paths].filter((path) => path.startsWith('shared/'))
    const untested = shared.filter(
      (path) =>
        !paths.has(`test/${path.replace(/\.ts$/, '.test.ts')}`) && TESTED_ELSEWHERE[path] === undefined,
    )
    assert.deepEqual(untested, [])
    for (const [path, where] of Object.entries(TESTED_ELSEWHERE)) {
      assert.ok(paths.has(path), `${path} is excused but does not exist`)
      for (const [named] of where.matchAll(/test\/[\w./-]+\.ts/g))
        assert.ok(paths.has(named), `${named} does not exist`)
    }
  })

  test('the top level is what it should be', async () => {
    const visible = [
      'LICENSE',
      'README.md',
      'package-lock.json',
      'package.json',
      'services',
      'shared',
      'test',
      'tsconfig.json',
    ]
    for (const name of visible) await stat(join(root, name))
    for (const folder of ['services', 'shared', 'test']) await stat(join(root, folder, 'README.md'))
  })

  test('the lockfile names no registry', async () => {
    const lock = await readFile(join(root, 'package-lock.json'), 'utf8')
    assert.doesNotMatch(lock, /"resolved": "https?:/)
  })

  test('the READMEs have the configuration and the errors as they are', async () => {
    const readme = await readFile(join(root, 'README.md'), 'utf8')
    const errors = Object.entries(errorTable).map(
      ([code, { status, message }]) => `| \`${code}\` | ${status} | ${message} |`,
    )
    assert.equal(between(readme, 'configuration'), shortTable())
    const configuration = await readFile(join(root, 'shared/config/README.md'), 'utf8')
    assert.equal(between(configuration, 'configuration'), configurationLists())
    const api = await readFile(join(root, 'services/api/README.md'), 'utf8')
    assert.equal(
      between(api, 'errors'),
      ['| code | status | meaning |', '|---|---|---|', ...errors].join('\n'),
    )
    assert.equal(await readFile(join(root, '.env.example'), 'utf8'), environmentExample())
  })
})

function between(text: string, name: string): string | undefined {
  return new RegExp(`<!-- ${name} -->\\n([\\s\\S]*?)\\n<!-- /${name} -->`).exec(text)?.[1]
}
