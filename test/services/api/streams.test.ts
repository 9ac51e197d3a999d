// Streams that end badly: aborted at any moment, stalled, too many. The test measures what they leave behind:
// listeners, timers, queries, and a process that does not exit.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { signPeerRequest } from '#shared/auth/peer-signature.ts'
import { createEventTail } from '../../../services/api/event-tail.ts'
import { createStreams } from '../../../services/api/streams.ts'
import { abortMany, countReads, quiet, STREAM, timers } from '../../support/aborted-streams.ts'
import { eventually } from '../../support/eventually.ts'
import { testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { type TestNode, testNode, testRegion } from '../../support/region.ts'

const KEY = 'first-key-of-the-regions-0123456789'
test('aborted long polls of a peer leave nothing behind either, and a peer has a number of them', async (t) => {
  const node = await testNode(t, { env: { PORTOLAN_PEER_KEYS: KEY, PORTOLAN_STREAMS_PER_ADDRESS_MAX: '20' } })
  const reads = countReads(node)
  const before = timers()
  const target = '/peer/v1/log?after=0:1:0&wait=25'
  const signed = (index: number) => {
    const headers = signPeerRequest(
      { method: 'GET', target, from: 'us', to: 'eu' },
      { key: KEY, nowSeconds: Math.floor(Date.now() / 1_000), nonce: `nonce-of-the-request-${index}` },
    )
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
    return `GET ${target} HTTP/1.1\r\nHost: h\r\n${lines.join('')}\r\n`
  }
  await abortMany(node.port, 500, signed)
  await quiet(reads)
  await eventually('the timers to be gone', () => timers() <= before + 2)
  // Opens streams until one is refused. Streams that were aborted before may still hold places for a moment.
  let answers = ''
  const waiting: Socket[] = []
  await eventually('a poll too many', () => {
    const socket = connect(node.port, '127.0.0.1')
    socket.on('data', (chunk) => {
      answers += chunk.toString()
    })
    socket.write(signed(1_000 + waiting.push(socket)))
    return /^HTTP\/1\.1 429 [\s\S]*?\r\nRetry-After: \d+\r\n/m.test(answers)
  })
  for (const socket of waiting) socket.destroy()
})

test('a pipelined stream that never had its turn ends with its connection', async (t) => {
  const node = await testNode(t)
  const reads = countReads(node)
  const socket = connect(node.port, '127.0.0.1')
  socket.write(STREAM + STREAM + STREAM)
  await once(socket, 'data')
  await eventually('following', () => reads() > 3)
  socket.destroy()
  await quiet(reads)
  await eventually(
    'three log lines',
    () => node.logLines.filter((line) => line.includes('"route":"events"')).length === 3,
  )
})

test('streams are bounded for an address and for the process: one more is 429 with Retry-After, and a place comes free', async (t) => {
  const node = await testNode(t, {
    env: {
      PORTOLAN_STREAMS_MAX: '5',
      PORTOLAN_STREAMS_PER_ADDRESS_MAX: '3',
      PORTOLAN_TRUSTED_PROXIES: '127.0.0.1',
    },
  })
  const open = async (address: string) => {
    const socket = connect(node.port, '127.0.0.1')
    socket.write(STREAM.replace('Host', `X-Forwarded-For: ${address}\r\nHost`))
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    t.after(() => socket.destroy())
    return { socket, text: chunk.toString() }
  }
  const first = await open('192.0.2.1')
  assert.match(first.text, /^HTTP\/1\.1 200/)
  for (let more = 0; more < 2; more++) assert.match((await open('192.0.2.1')).text, /^HTTP\/1\.1 200/)
  const refused = (await open('192.0.2.1')).text
  assert.match(refused, /^HTTP\/1\.1 429/)
  assert.match(refused, /\r\nRetry-After: \d+\r\n[\s\S]*"code":"TOOMANYREQUESTS"/)
  for (const address of ['2001:db8::1', '2001:db8::2']) {
    assert.match((await open(address)).text, /^HTTP\/1\.1 200/)
  }
  assert.match((await open('198.51.100.1')).text, /^HTTP\/1\.1 429/, 'the process has five')
  first.socket.destroy()
  await eventually('a place', async () => (await open('198.51.100.1')).text.startsWith('HTTP/1.1 200'))
})

async function drains(t: TestContext, prepare: (node: TestNode) => Promise<void>): Promise<number> {
  const node = await testNode(t, { env: { PORTOLAN_DRAIN_SECONDS: '2' } })
  await prepare(node)
  const startMs = performance.now()
  await node.stop()
  return performance.now() - startMs
}

test('the drain ends within its time beside aborted, standing and stuck streams', async (t) => {
  const aborted = await drains(t, async ({ port }) => void (await abortMany(port, 50, () => STREAM)))
  assert.ok(aborted < 3_000, `aborted: ${aborted} ms`)
  const open = await drains(t, async ({ port }) => {
    for (let each = 0; each < 20; each++) {
      const socket = connect(port, '127.0.0.1')
      t.after(() => socket.destroy())
      socket.write(STREAM)
      await once(socket, 'data')
      socket.pause()
    }
  })
  assert.ok(open < 3_000, `open: ${open} ms`)
  const stuck = await drains(t, async ({ port, region }) => {
    const socket = connect(port, '127.0.0.1')
    t.after(() => socket.destroy())
    socket.on('error', () => {})
    socket.write(STREAM)
    await once(socket, 'data')
    // The database stalls: neither the current tick nor a new reader ever gets a result.
    const asked = Promise.withResolvers<void>()
    region.reads.rows = () => {
      asked.resolve()
      return new Promise(() => {})
    }
    await asked.promise
    const late = connect(port, '127.0.0.1')
    t.after(() => late.destroy())
    late.on('error', () => {})
    await new Promise((written) => late.write(STREAM, written))
  })
  assert.ok(stuck < 3_000, `stuck: ${stuck} ms`)
})

test('the tail: who stops while it starts, a start that fails and an end leave nothing that follows', async (t) => {
  const { region } = await testRegion(t)
  const node = { region } as TestNode
  const listener = { onEvents: () => {}, onEnd: () => {} }
  const rows = region.reads.rows
  const { promise: held, resolve: release } = Promise.withResolvers<void>()
  region.reads.rows = async (statement, values) => {
    await held
    return rows(statement, values)
  }
  const reads = countReads(node)
  const tail = createEventTail(region)
  const early = tail.listen(listener)
  early[Symbol.dispose]()
  release()
  await quiet(reads)
  region.reads.rows = () => Promise.reject(new Error('away'))
  const failing = [tail.listen(listener), tail.listen({ ...listener })]
  for (const each of failing) await assert.rejects(each.ready, /away/)
  region.reads.rows = rows
  const again = countReads(node)
  const good = tail.listen(listener)
  await good.ready
  await eventually('following', () => again() > 2)
  good[Symbol.dispose]()
  for (const each of failing) each[Symbol.dispose]()
  await quiet(again)
  assert.equal(tail.listeners, 0)
  const last = tail.listen(listener)
  await tail[Symbol.asyncDispose]()
  await last.ready
  await quiet(again)
  assert.throws(() => tail.listen(listener), /unavailable/)
})

test('places are counted per caller and given back once', () => {
  const streams = createStreams({ max: 3, perCallerMax: 2 })
  const first = streams.take('a')
  streams.take('a')
  assert.throws(() => streams.take('a'), /2 streams are open for one address/)
  streams.take('b')
  assert.throws(() => streams.take('c'), /3 streams are open in one process/)
  first[Symbol.dispose]()
  first[Symbol.dispose]()
  assert.equal(streams.open, 2)
  streams.take('a')
})

test('pushes go on as fast beside a crowd of aborted streams: each costs the same queries as before', async (t) => {
  const node = await testNode(t)
  await abortMany(node.port, 300, () => STREAM)
  const reads = countReads(node)
  await quiet(reads)
  const before = reads()
  await ociClient(node.url).pushImage('a', testImage(), 'v1')
  assert.equal(reads(), before)
})
