// Runs the program the way users start it.
// tests: shared/db/first-contact.ts, shared/observability/listen.ts, shared/observability/probe-server.ts

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import bcrypt from 'bcrypt'
import pg from 'pg'
import { eventually } from '../support/eventually.ts'
import { testImage } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'
import { freePort, type PortolanProcess, startPortolan } from '../support/portolan-process.ts'
import { emptyDatabase, testDatabase } from '../support/postgres.ts'
import { testDirectory } from '../support/region.ts'

const START_MS_MAX = 30_000
const root = join(import.meta.dirname, '..', '..')

function run(
  args: string[],
  env: Record<string, string>,
): Promise<{ code: number; stdout: string; stderr: string; ms: number }> {
  const startMs = performance.now()
  return new Promise((resolve) => {
    const options = { cwd: root, env: { PATH: process.env.PATH, ...env }, timeout: 60_000 }
    execFile(
      process.execPath,
      ['--import', './services/require-node.js', 'services/main.ts', ...args],
      options,
      (error, stdout, stderr) =>
        resolve({
          code: typeof error?.code === 'number' ? error.code : 0,
          stdout,
          stderr,
          ms: performance.now() - startMs,
        }),
    )
  })
}

/** Starts a server that passes each connection to `onConnection`. Returns its port. */
async function listening(t: TestContext, onConnection: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    onConnection(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as { port: number }).port
}

/** Starts a process on the test database, which takes a third of the time of a start with embedded Postgres. */
async function startOnDatabase(t: TestContext, env: Record<string, string> = {}): Promise<PortolanProcess> {
  return startPortolan({
    dataDir: await testDirectory(t),
    env: { PORTOLAN_DATABASE_URL: await testDatabase(t), ...env },
  })
}

test('Portolan starts in an empty directory, serves both loopback families, drains, and keeps its data', async (t) => {
  const dataDir = await testDirectory(t)
  const image = testImage()
  {
    await using portolan = await startPortolan({ dataDir })
    assert.match(
      portolan.output(),
      /registry {3}http:\/\/localhost:\d+[\s\S]*docker push localhost:\d+\/hello[\s\S]*Ctrl-C/,
    )
    const port = portolan.host.split(':')[1]
    await ociClient(`http://127.0.0.1:${port}`).pushImage('a', image, 'v1')
    assert.equal((await fetch(`http://[::1]:${port}/v2/`)).status, 200)
    assert.equal(await portolan.stop('SIGINT'), 0)
  }
  await using again = await startPortolan({ dataDir })
  assert.deepEqual((await ociClient(again.url).get('/v2/a/manifests/v1')).body, image.bytes)
})

test('kill -9 loses nothing that was acknowledged', async (t) => {
  const dataDir = await testDirectory(t)
  const image = testImage()
  const first = await startPortolan({ dataDir })
  await ociClient(first.url).pushImage('a', image, 'v1')
  await first.stop('SIGKILL')
  await using again = await startPortolan({ dataDir })
  assert.deepEqual((await ociClient(again.url).get('/v2/a/manifests/v1')).body, image.bytes)
})

test('an error that an operator can fix is one clear sentence and exit code 1', async (t) => {
  const dataDir = await testDirectory(t)
  const busy = createServer()
  const port = await new Promise<number>((resolve) => {
    busy.listen(0, '127.0.0.1', () => resolve((busy.address() as { port: number }).port))
  })
  t.after(() => busy.close())
  await writeFile(join(dataDir, 'file'), 'alice:plain\n')
  const url = await emptyDatabase(t)
  const database = (of: string) => ({ PORTOLAN_DATA_DIR: dataDir, PORTOLAN_DATABASE_URL: of })
  const silent = `postgres://u:hunter2@127.0.0.1:${await listening(t, () => {})}/d`
  // The response of a Postgres server without TLS to an SSLRequest.
  const plain = await listening(t, (socket) => socket.once('data', () => socket.write('N')))
  const tls = `postgres://u:hunter2@127.0.0.1:${plain}/d?sslmode=verify-full`
  let slowestMs = 0
  const cases: [string[], Record<string, string>, RegExp][] = [
    [
      [],
      { PORTOLAN_LISTEN: `localhost:${port}`, PORTOLAN_DATA_DIR: dataDir },
      /^127\.0\.0\.1:\d+ is in use by another program: .*PORTOLAN_LISTEN/,
    ],
    [[], { PORTOLAN_REGION: 'EU' }, /PORTOLAN_REGION is not a lower-case word/],
    [
      ['apy'],
      {},
      /^Unknown service "apy"\. The nearest is api\. Choose from world, all, api, relay, webhooks, replicator, janitor/,
    ],
    [['move-blob'], {}, /^Unknown service "move-blob"\. The nearest is move-blobs/],
    [['--print-confg'], {}, /^Unknown option "--print-confg"\. The nearest is --print-config/],
    [['move-blobs', '--to'], {}, /option --to requires a value/],
    [[], { PORTOLAN_EMBEDDED: 'forbid' }, /PORTOLAN_EMBEDDED=forbid needs PORTOLAN_DATABASE_URL/],
    [[], { PORTOLAN_DATA_DIR: '/proc/none' }, /^The data directory \/proc\/none\/eu cannot be created \(E/],
    [
      [],
      { PORTOLAN_DATA_DIR: join(dataDir, 'file', 'inner') },
      /^The data directory .* cannot be created \(ENOTDIR\): set PORTOLAN_DATA_DIR/,
    ],
    [
      [],
      {
        PORTOLAN_DATA_DIR: dataDir,
        PORTOLAN_AUTH: 'accounts',
        PORTOLAN_HTPASSWD_FILE: join(dataDir, 'none'),
      },
      /^The accounts file .*none cannot be read \(ENOENT\): correct PORTOLAN_HTPASSWD_FILE/,
    ],
    [
      [],
      {
        PORTOLAN_DATA_DIR: dataDir,
        PORTOLAN_AUTH: 'accounts',
        PORTOLAN_HTPASSWD_FILE: join(dataDir, 'file'),
      },
      /line 1 of the htpasswd file .*no bcrypt hash/,
    ],
    [
      [],
      database('postgres://u:hunter2@127.0.0.1:1/d'),
      /^No Postgres answers at 127\.0\.0\.1:1 \(ECONNREFUSED\)/,
    ],
    [[], database('postgres://u:hunter2@localhost:1/d'), /^No Postgres answers at localhost:1/],
    [[], database('postgres://u:hunter2@%2Fnowhere/d'), /^No Postgres answers at \/nowhere \(ENOENT\)/],
    [
      [],
      database('postgres://u:hunter2@no-such-host.invalid/d'),
      /^The host of the database, .*invalid:5432, has no address/,
    ],
    [[], database(silent), /^Postgres at 127\.0\.0\.1:\d+ cannot be reached/],
    [[], database(tls), /^TLS with Postgres at 127\.0\.0\.1:\d+ fails/],
    [[], database(url.replace(/\/[^/?]*(\?|$)/, '/nothing$1')), /has no database "nothing": create it/],
    [
      [],
      database(url.replace(/:[^:@/]+@/, ':hunter2@')),
      /does not let ".*" in \(password authentication failed/,
    ],
  ]
  const left = cases.values()
  const check = async ([args, env, sentence]: (typeof cases)[number]) => {
    const port = { PORTOLAN_LISTEN: `localhost:${await freePort()}`, PORTOLAN_METRICS_LISTEN: 'off' }
    const { code, stderr, ms } = await run(args, { ...port, ...env })
    assert.equal(code, 1)
    assert.match(stderr, sentence)
    assert.ok(!stderr.includes('    at '), `no stack: ${stderr}`)
    if (!stderr.startsWith('The configuration has')) assert.equal(stderr.trim().split('\n').length, 1, stderr)
    assert.ok(!stderr.includes('hunter2'), 'no password')
    slowestMs = Math.max(slowestMs, ms)
  }
  await Promise.all(
    [1, 2].map(async () => {
      for (const each of left) await check(each)
    }),
  )
  t.diagnostic(`the slowest case took ${Math.round(slowestMs)} ms`)
  // Five seconds, plus the time a process takes to start on a busy machine.
  assert.ok(slowestMs < 5_000 + START_MS_MAX)
})

test('a start that waits for the migration of another node ends on a stop request', async (t) => {
  const url = await emptyDatabase(t)
  const other = new pg.Client({ connectionString: url })
  // The database is dropped before this client disconnects.
  other.on('error', () => {})
  t.after(() => other.end())
  await other.connect()
  await other.query('begin; select pg_advisory_xact_lock(7065811)')
  const env = {
    PATH: process.env.PATH,
    PORTOLAN_DATABASE_URL: url,
    PORTOLAN_DATA_DIR: await testDirectory(t),
    PORTOLAN_LISTEN: `localhost:${await freePort()}`,
    PORTOLAN_METRICS_LISTEN: 'off',
    PORTOLAN_DRAIN_SECONDS: '1',
  }
  const child = spawn(process.execPath, ['services/main.ts'], { cwd: root, env })
  t.after(() => child.kill('SIGKILL'))
  await eventually('the process to wait for the lock', async () => {
    const { rows } = await other.query(
      `select from pg_locks where locktype = 'advisory' and not granted
         and database = (select oid from pg_database where datname = current_database())`,
    )
    return rows.length === 1
  })
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  assert.deepEqual(await exited, [1, null])
})

test('--print-config prints the effective configuration with secrets masked', async () => {
  const { code, stdout } = await run(['--print-config'], {
    PORTOLAN_DATABASE_URL: 'postgres://u:hunter2@h/d',
    PORTOLAN_REGION: 'us',
  })
  assert.equal(code, 0)
  assert.match(stdout, /^PORTOLAN_REGION=us$/m)
  assert.doesNotMatch(stdout, /hunter2/)
})

test('metrics and probes have their own port', async (t) => {
  const metricsPort = await freePort()
  await using portolan = await startOnDatabase(t, { PORTOLAN_METRICS_LISTEN: `localhost:${metricsPort}` })
  await ociClient(portolan.url).pushImage('a', testImage(), 'v1')
  const metrics = await (await fetch(`http://localhost:${metricsPort}/metrics`)).text()
  assert.match(metrics, /portolan_requests_total\{route="manifest",method="PUT",status="201"\} 1/)
  assert.match(metrics, /portolan_manifests 1/)
  for (const probe of ['livez', 'readyz']) {
    assert.equal((await fetch(`http://localhost:${metricsPort}/${probe}`)).status, 200)
    assert.equal((await fetch(`${portolan.url}/${probe}`)).status, 200)
  }
  assert.equal((await fetch(`${portolan.url}/metrics`)).status, 404, 'not on the port for clients')
})

test('several processes serve one port as one registry, and their metrics are summed', {
  skip: process.platform !== 'linux' && 'requires SO_REUSEPORT',
}, async (t) => {
  const metricsPort = await freePort()
  await using portolan = await startOnDatabase(t, {
    PORTOLAN_PROCESSES: '2',
    PORTOLAN_METRICS_LISTEN: `localhost:${metricsPort}`,
  })
  const image = testImage()
  await ociClient(portolan.url).pushImage('a', image, 'v1')
  const statuses = await Promise.all(
    Array.from(
      { length: 40 },
      async () =>
        (await fetch(`${portolan.url}/v2/a/manifests/v1`, { headers: { Connection: 'close' } })).status,
    ),
  )
  assert.deepEqual(new Set(statuses), new Set([200]))
  const metrics = await (await fetch(`http://localhost:${metricsPort}/metrics`)).text()
  assert.match(metrics, /portolan_requests_total\{route="manifest",method="GET",status="200"\} 40/)
  assert.equal(await portolan.stop(), 0)
})

test('an embedded region creates its secrets key once, readable only by its user, and its processes share it', {
  skip: process.platform !== 'linux' && 'requires SO_REUSEPORT',
}, async (t) => {
  const dataDir = await testDirectory(t)
  const htpasswd = join(dataDir, 'htpasswd')
  await writeFile(htpasswd, `alice:${await bcrypt.hash('secret', 4)}\n`)
  const key = () => readFile(join(dataDir, 'eu', 'secrets-key'), 'utf8')
  const env = { PORTOLAN_AUTH: 'accounts', PORTOLAN_HTPASSWD_FILE: htpasswd, PORTOLAN_PROCESSES: '2' }
  const login = async (url: string) => {
    const headers = { Authorization: `Basic ${btoa('alice:secret')}`, Connection: 'close' }
    const statuses = Array.from({ length: 10 }, async () => (await fetch(`${url}/token`, { headers })).status)
    return new Set(await Promise.all(statuses))
  }
  let made: string
  {
    await using portolan = await startPortolan({ dataDir, env })
    assert.deepEqual(await login(portolan.url), new Set([200]))
    made = await key()
    assert.equal((await stat(join(dataDir, 'eu', 'secrets-key'))).mode & 0o777, 0o600)
    assert.ok(!portolan.output().includes(made.trim()))
  }
  await using again = await startPortolan({ dataDir, env })
  assert.deepEqual(await login(again.url), new Set([200]))
  assert.equal(await key(), made)
  assert.doesNotMatch(again.output(), /cannot be opened/)
})

test('a draining process finishes the requests in progress', async (t) => {
  const portolan = await startOnDatabase(t)
  const client = ociClient(portolan.url)
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  let finish = () => {}
  const body = new ReadableStream({
    start(controller) {
      controller.enqueue(Buffer.from('first '))
      finish = () => {
        controller.enqueue(Buffer.from('last'))
        controller.close()
      }
    },
  })
  const patching = client.request('PATCH', location, { body })
  await eventually(
    'the upload to be in progress',
    async () => (await fetch(`${portolan.url}/livez`)).status === 200,
  )
  const stopping = portolan.stop()
  await eventually('new connections to be refused', () =>
    fetch(`${portolan.url}/livez`).then(
      () => false,
      () => true,
    ),
  )
  finish()
  assert.equal((await patching).status, 202)
  assert.equal(await stopping, 0)
})

test('a preconnected connection that was never used does not delay a drain', async (t) => {
  const portolan = await startOnDatabase(t, { PORTOLAN_DRAIN_SECONDS: '600' })
  const socket = connect(Number(portolan.host.split(':')[1]), '127.0.0.1')
  await once(socket, 'connect')
  const closed = once(socket, 'close')
  assert.equal(await portolan.stop(), 0)
  await closed
})

test('aborted readers of the event stream do not delay a drain', async (t) => {
  const portolan = await startOnDatabase(t, { PORTOLAN_DRAIN_SECONDS: '2' })
  const port = Number(portolan.host.split(':')[1])
  for (let each = 0; each < 20; each++) {
    const socket = connect(port, '127.0.0.1')
    await once(socket, 'connect')
    await new Promise((written) =>
      socket.write('GET /api/v1/events HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n', written),
    )
    socket.destroy()
  }
  const open = connect(port, '127.0.0.1')
  open.write('GET /api/v1/events HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n')
  await once(open, 'data')
  open.pause()
  assert.equal(await portolan.stop(), 0)
  open.destroy()
})

test('a Node version that is too old is reported in one sentence', async () => {
  const old = spawn('/usr/bin/node', ['--version'], { stdio: ['ignore', 'pipe', 'ignore'] })
  const version = await new Promise<string>((resolve) => {
    let text = ''
    old.stdout.on('data', (chunk: Buffer) => {
      text += chunk
    })
    old.on('close', () => resolve(text))
    old.on('error', () => resolve(''))
  })
  if (!/^v(?:1\d|2[0-3])\./.test(version)) return
  const { stderr } = await new Promise<{ stderr: string }>((resolve) => {
    execFile(
      '/usr/bin/node',
      ['--import', './services/require-node.js', 'services/main.ts'],
      { cwd: root },
      (_error, _stdout, text) => resolve({ stderr: text }),
    )
  })
  assert.match(stderr, /^Portolan needs Node 24 or newer; this is v2/)
})
