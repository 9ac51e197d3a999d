// Runs the OCI conformance suite in all relevant configurations: both versions of the specification, sparse manifests,
// with and without authentication, direct and through a load balancer over two nodes. No test may fail or be skipped. A
// run without a result file counts as failed, because the suite exits with 0 if it did not understand its
// configuration.

import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import bcrypt from 'bcrypt'
import { startBalancer } from '../support/balancer.ts'
import { startObjectStore, withoutStore } from '../support/parts/object-stores.ts'
import { findTool } from '../support/parts/tools.ts'
import { type PortolanProcess, startPortolan } from '../support/portolan-process.ts'

const RUN_TIMEOUT_MS = 120_000
/** With fewer tests than this, the suite did not run completely. */
const TESTS_MIN = 800
const ACCOUNT = { name: 'conformance', password: 'conformance-password' }

interface Shape {
  readonly version: '1.1' | 'dev'
  readonly sparse: boolean
  readonly auth: boolean
  readonly nodes: 1 | 2
  /** Use a real S3 server instead of files. With redirects, every blob is fetched from that server. */
  readonly s3?: 'redirects off' | 'redirects on'
}

const shapes: Shape[] = [false, true].flatMap((auth) =>
  ([1, 2] as const).flatMap((nodes) => [
    { version: '1.1', sparse: false, auth, nodes } as const,
    { version: 'dev', sparse: false, auth, nodes } as const,
    { version: 'dev', sparse: true, auth, nodes } as const,
  ]),
)
for (const version of ['1.1', 'dev'] as const) {
  shapes.push({ version, sparse: false, auth: true, nodes: 2, s3: 'redirects off' })
  // The suite forwards its Authorization header on redirects. No real client does this, and S3 rejects it.
  shapes.push({ version, sparse: false, auth: false, nodes: 2, s3: 'redirects on' })
}
const withoutS3 = withoutStore('minio')
if (withoutS3) process.stdout.write(`SKIP conformance on S3: ${withoutS3}\n`)

const suite = findTool('conformance')
if (suite === undefined) {
  process.stdout.write(
    'SKIP conformance: the suite is not built (node test/support/parts/tools.ts conformance)\n',
  )
  process.exit(0)
}

let passed = 0
let failed = 0
const directory = await mkdtemp(join(tmpdir(), 'portolan-conformance-'))
try {
  const htpasswd = join(directory, 'htpasswd')
  await writeFile(htpasswd, `${ACCOUNT.name}:${await bcrypt.hash(ACCOUNT.password, 5)}\n`)
  for (const shape of shapes.filter(({ s3 }) => s3 === undefined || !withoutS3)) {
    const { tests, failures, skipped } = await inShape(shape, htpasswd)
    const bad = failures + skipped + (tests < TESTS_MIN ? 1 : 0)
    passed += tests - failures - skipped
    failed += bad
    const name = `${shape.version}${shape.sparse ? ' sparse' : ''}, ${shape.auth ? 'Bearer' : 'no auth'}, ${shape.nodes} node${shape.nodes === 1 ? '' : 's'}${shape.s3 ? `, S3, ${shape.s3}` : ''}`
    process.stdout.write(
      `${bad === 0 ? 'ok  ' : 'FAIL'} ${name}: ${tests} tests, ${failures} failed, ${skipped} skipped\n`,
    )
  }
} finally {
  await rm(directory, { recursive: true, force: true })
}
process.stdout.write(`conformance: ${passed} passed, ${failed} failed, 0 skipped\n`)
process.exitCode = failed === 0 ? 0 : 1

interface Counts {
  tests: number
  failures: number
  skipped: number
}

async function inShape(shape: Shape, htpasswd: string): Promise<Counts> {
  await using running = new AsyncDisposableStack()
  const store = shape.s3 && running.use(await startObjectStore('minio'))
  const env = {
    ...store?.env,
    ...(shape.s3 === 'redirects on' && {
      PORTOLAN_REDIRECT: 'on',
      // The next version requires Docker-Content-Digest on the final response for a blob. No store sends this header,
      // so only large blobs are redirected there, as in production.
      ...(shape.version === '1.1' && { PORTOLAN_REDIRECT_BYTES_MIN: '0' }),
    }),
    PORTOLAN_SPARSE: shape.sparse ? 'all' : 'none',
    ...(shape.auth && {
      PORTOLAN_AUTH: 'accounts',
      PORTOLAN_HTPASSWD_FILE: htpasswd,
    }),
  }
  const first = running.use(await startPortolan({ env }))
  // Awaited here, because leaving this function stops the servers.
  if (shape.nodes === 1) return await conform(shape, first.host)
  const second = running.use(await secondNode(first, env))
  const balancer = running.use(await startBalancer([portOf(first), portOf(second)]))
  return await conform(shape, balancer.host)
}

/** Starts another API process on the database and blobs of the first. */
async function secondNode(first: PortolanProcess, env: Record<string, string>): Promise<PortolanProcess> {
  const data = join(first.dataDir, 'eu', 'postgres')
  const password = (await readFile(join(data, 'password'), 'utf8')).trim()
  const url = `postgres://portolan:${password}@${encodeURIComponent(join(data, 'socket'))}/postgres`
  return startPortolan({
    services: ['api'],
    dataDir: first.dataDir,
    env: { ...env, PORTOLAN_DATABASE_URL: url },
  })
}

function portOf({ host }: PortolanProcess): number {
  return Number(host.split(':')[1])
}

async function conform(shape: Shape, host: string): Promise<Counts> {
  const results = await mkdtemp(join(directory, 'results-'))
  const env = {
    PATH: process.env.PATH,
    OCI_REGISTRY: host,
    OCI_TLS: 'disabled',
    OCI_REPO1: 'conformance/repo1',
    OCI_REPO2: 'conformance/repo2',
    OCI_USERNAME: shape.auth ? ACCOUNT.name : '',
    OCI_PASSWORD: shape.auth ? ACCOUNT.password : '',
    OCI_VERSION: shape.version,
    OCI_DATA_SPARSE: String(shape.sparse),
    OCI_RESULTS_DIR: results,
  }
  const output = await new Promise<string>((done) => {
    execFile(
      suite ?? '',
      {
        env,
        cwd: results,
        timeout: RUN_TIMEOUT_MS,
        maxBuffer: 64 * 1024 * 1024,
      },
      (_error, stdout) => done(stdout),
    )
  })
  const junit = await readFile(join(results, 'junit.xml'), 'utf8').catch(() => '')
  const root = /<testsuites[^>]*>/.exec(junit)?.[0] ?? ''
  const count = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(root)?.[1] ?? 0)
  const counts = {
    tests: count('tests'),
    failures: count('failures') + count('errors'),
    skipped: count('skipped'),
  }
  if (counts.failures + counts.skipped > 0 || counts.tests < TESTS_MIN)
    process.stdout.write(`${output.slice(-4000)}\n`)
  return counts
}
