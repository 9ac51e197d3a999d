import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { type Balancer, startBalancer } from '../../../services/world/balancer.ts'
import { eventually } from '../../support/eventually.ts'

interface Region {
  readonly name: string
  readonly port: number
  readiness: 200 | 503 | 'silent'
  stop(): Promise<void>
}

async function region(t: TestContext, name: string): Promise<Region> {
  const server = createServer((request, response) => {
    if (request.url !== '/readyz') response.end(name)
    else if (state.readiness !== 'silent') response.writeHead(state.readiness).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const stop = async () => {
    server.closeAllConnections()
    if (server.listening) await new Promise((done) => server.close(done))
  }
  t.after(stop)
  const state: Region = { name, port: (server.address() as { port: number }).port, readiness: 200, stop }
  return state
}

async function balanced(t: TestContext, regions: readonly Region[]): Promise<Balancer> {
  const balancer = await startBalancer({
    listen: { host: '127.0.0.1', port: 0 },
    regions,
    lookEveryMs: 60_000,
  })
  t.after(() => balancer[Symbol.asyncDispose]())
  return balancer
}

const ask = async ({ port }: Balancer): Promise<string> =>
  (await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } })).text()

test('connections go to the first region that is ready, and back when it returns', async (t) => {
  const [eu, us] = [await region(t, 'eu'), await region(t, 'us')]
  const balancer = await balanced(t, [eu, us])
  assert.equal(await ask(balancer), 'eu')
  eu.readiness = 503
  await balancer.look()
  assert.equal(await ask(balancer), 'us')
  eu.readiness = 200
  await balancer.look()
  assert.equal(await ask(balancer), 'eu')
})

test('a region that is gone is passed over before anybody looked', async (t) => {
  const [eu, us] = [await region(t, 'eu'), await region(t, 'us')]
  const balancer = await balanced(t, [eu, us])
  await eu.stop()
  assert.equal(await ask(balancer), 'us')
})

test('a region that drains keeps its connections, one that is silent loses them', async (t) => {
  const [eu, us] = [await region(t, 'eu'), await region(t, 'us')]
  const balancer = await balanced(t, [eu, us])
  const socket = connect(balancer.port, '127.0.0.1')
  t.after(() => socket.destroy())
  socket.write('GET / HTTP/1.1\r\nHost: h\r\n\r\n')
  await once(socket, 'data')
  eu.readiness = 503
  await balancer.look()
  socket.write('GET / HTTP/1.1\r\nHost: h\r\n\r\n')
  await once(socket, 'data')
  eu.readiness = 'silent'
  for (let looks = 0; looks < 3; looks++) await balancer.look()
  await eventually(
    'the connection to be cut',
    () => socket.closed || socket.destroyed || socket.readableEnded,
  )
})

test('with no region ready a connection is closed, not held', async (t) => {
  const eu = await region(t, 'eu')
  const balancer = await balanced(t, [eu])
  eu.readiness = 503
  await balancer.look()
  await assert.rejects(ask(balancer))
})
