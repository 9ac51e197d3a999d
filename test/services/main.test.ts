// The program as its users start it.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { eventually } from '../support/eventually.ts'
import { testImage } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'
import { freePort, startPortolan } from '../support/portolan-process.ts'
import { testDirectory } from '../support/region.ts'

const root = join(import.meta.dirname, '..', '..')

function run(
  args: string[],
  env: Record<string, string>,
): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const options = { cwd: root, env: { PATH: process.env.PATH, ...env }, timeout: 20_000 }
    execFile(
      process.execPath,
      ['--import', './services/require-node.js', 'services/main.ts', ...args],
      options,
      (error, stdout, stderr) =>
        resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr }),
    )
  })
}

test('it starts on an empty directory, greets, serves on both loopback families, drains, and finds everything again', async (t) => {
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

test('kill -9 loses nothing that was answered', async (t) => {
  const dataDir = await testDirectory(t)
  const image = testImage()
  const first = await startPortolan({ dataDir })
  await ociClient(first.url).pushImage('a', image, 'v1')
  await first.stop('SIGKILL')
  await using again = await startPortolan({ dataDir })
  assert.deepEqual((await ociClient(again.url).get('/v2/a/manifests/v1')).body, image.bytes)
})

test('what an operator can mend is one clear sentence and exit code 1', async (t) => {
  const dataDir = await testDirectory(t)
  const busy = createServer()
  const port = await new Promise<number>((resolve) => {
    busy.listen(0, '127.0.0.1', () => resolve((busy.address() as { port: number }).port))
  })
  t.after(() => busy.close())
  const cases: [string[], Record<string, string>, RegExp][] = [
    [
      [],
      { PORTOLAN_LISTEN: `localhost:${port}`, PORTOLAN_DATA_DIR: dataDir },
      /^127\.0\.0\.1:\d+ is in use by another program: .*PORTOLAN_LISTEN/,
    ],
    [[], { PORTOLAN_REGION: 'EU' }, /PORTOLAN_REGION is no lower-case word/],
    [['apy'], {}, /no service "apy": choose from all, api, relay, webhooks, janitor/],
    [[], { PORTOLAN_EMBEDDED: 'forbid' }, /PORTOLAN_EMBEDDED=forbid needs PORTOLAN_DATABASE_URL/],
  ]
  for (const [args, env, sentence] of cases) {
    const { code, stderr } = await run(args, env)
    assert.equal(code, 1)
    assert.match(stderr, sentence)
    assert.ok(!stderr.includes('    at '), `no stack: ${stderr}`)
  }
})

test('--print-config shows what is in force, secrets masked', async () => {
  const { code, stdout } = await run(['--print-config'], {
    PORTOLAN_DATABASE_URL: 'postgres://u:hunter2@h/d',
    PORTOLAN_REGION: 'us',
  })
  assert.equal(code, 0)
  assert.equal((JSON.parse(stdout) as { region: string }).region, 'us')
  assert.doesNotMatch(stdout, /hunter2/)
})

test('a second one on the same data directory is refused while the first lives', async (t) => {
  const dataDir = await testDirectory(t)
  await using _ = await startPortolan({ dataDir })
  const { code, stderr } = await run([], {
    PORTOLAN_DATA_DIR: dataDir,
    PORTOLAN_LISTEN: `localhost:${await freePort()}`,
    PORTOLAN_METRICS_LISTEN: 'off',
  })
  assert.equal(code, 1)
  assert.match(stderr, /in use by process \d+/)
})

test('metrics and probes have a port of their own', async (t) => {
  const metricsPort = await freePort()
  await using portolan = await startPortolan({
    dataDir: await testDirectory(t),
    env: { PORTOLAN_METRICS_LISTEN: `localhost:${metricsPort}` },
  })
  await ociClient(portolan.url).pushImage('a', testImage(), 'v1')
  const metrics = await (await fetch(`http://localhost:${metricsPort}/metrics`)).text()
  assert.match(metrics, /portolan_requests_total\{route="manifest",method="PUT",status="201"\} 1/)
  assert.match(metrics, /portolan_manifests 1/)
  for (const probe of ['livez', 'readyz']) {
    assert.equal((await fetch(`http://localhost:${metricsPort}/${probe}`)).status, 200)
    assert.equal((await fetch(`${portolan.url}/${probe}`)).status, 200)
  }
  assert.equal((await fetch(`${portolan.url}/metrics`)).status, 404, 'not where clients are')
})

test('several processes answer on one port as one registry, and add up their numbers', {
  skip: process.platform !== 'linux' && 'needs SO_REUSEPORT',
}, async (t) => {
  const metricsPort = await freePort()
  await using portolan = await startPortolan({
    dataDir: await testDirectory(t),
    env: { PORTOLAN_PROCESSES: '2', PORTOLAN_METRICS_LISTEN: `localhost:${metricsPort}` },
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

test('a request under way is finished while the process drains', async (t) => {
  const portolan = await startPortolan({ dataDir: await testDirectory(t) })
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
    'the upload to be under way',
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

test('a connection that was opened in advance and never used does not hold a process that drains', async (t) => {
  const portolan = await startPortolan({
    dataDir: await testDirectory(t),
    env: { PORTOLAN_DRAIN_SECONDS: '600' },
  })
  const socket = connect(Number(portolan.host.split(':')[1]), '127.0.0.1')
  await once(socket, 'connect')
  const closed = once(socket, 'close')
  assert.equal(await portolan.stop(), 0)
  await closed
})

test('aborted readers of the event stream do not keep a process that is told to stop', async (t) => {
  const portolan = await startPortolan({
    dataDir: await testDirectory(t),
    env: { PORTOLAN_DRAIN_SECONDS: '2' },
  })
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

test('under a Node that is too old there is one sentence', async () => {
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
