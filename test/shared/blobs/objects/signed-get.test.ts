import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, Agent as HttpAgent, type IncomingMessage, type ServerResponse } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { s3FailureOf } from '#shared/blobs/objects/s3-service.ts'
import { getSigned } from '#shared/blobs/objects/signed-get.ts'
import { eventually } from '../../../support/eventually.ts'

async function store(t: TestContext, answer: (request: IncomingMessage, response: ServerResponse) => void) {
  const server = createServer(answer)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const agents = { http: new HttpAgent({ keepAlive: true }), https: new HttpsAgent() }
  t.after(() => {
    agents.http.destroy()
    server.closeAllConnections()
    server.close()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/bucket/key`
  const get = (range?: { start: number; end: number }, signal = new AbortController().signal) =>
    getSigned({ url, headers: { authorization: 'signed' } }, { agents, connectMsMax: 1_000, range, signal })
  return { get, agents, server }
}

const failure = (thrown: unknown) => s3FailureOf(thrown, { bucket: 'b', endpoint: 'http://store' })

test('a range is asked for with the signed headers, and its length and bytes come back', async (t) => {
  const { get, agents } = await store(t, ({ headers, url }, response) => {
    const text = `${url} ${headers.authorization} ${headers.range}`
    response.writeHead(206, { 'Content-Length': text.length }).end(text)
  })
  const wanted = '/bucket/key signed bytes=5-9'
  for (let count = 0; count < 2; count++) {
    const { bytes, body } = await get({ start: 5, end: 9 })
    assert.equal(bytes, wanted.length)
    assert.equal(Buffer.concat(await body.toArray()).toString(), wanted)
  }
  await eventually('the connection to be kept', () => Object.keys(agents.http.freeSockets).length === 1)
})

test('large bodies on one kept connection are right to the last byte, paused or not', async (t) => {
  const whole = randomBytes(8_000_000)
  const { get } = await store(t, (_request, response) => {
    response.writeHead(200, { 'Content-Length': whole.length })
    for (let from = 0; from < whole.length; from += 100_001)
      response.write(whole.subarray(from, from + 100_001))
    response.end()
  })
  for (let count = 0; count < 3; count++) {
    const { body } = await get()
    const got: Buffer[] = []
    for await (const chunk of body as AsyncIterable<Buffer>) {
      if (got.length % 20 === count) await new Promise(setImmediate)
      got.push(chunk)
    }
    assert.ok(Buffer.concat(got).equals(whole))
  }
})

test('an answer that is an error means what the table says of its code, or else of its status', async (t) => {
  for (const [status, body, kind, again] of [
    [404, '<Error><Code>NoSuchKey</Code></Error>', 'missing', false],
    [404, '<Error><Code>NoSuchBucket</Code></Error>', 'denied', false],
    [403, '<Error><Code>ExpiredToken</Code></Error>', 'denied', false],
    [301, '<Error><Code>PermanentRedirect</Code></Error>', 'denied', false],
    [416, '<Error><Code>InvalidRange</Code></Error>', 'corrupt', false],
    [503, '<Error><Code>SlowDown</Code></Error>', 'unavailable', true],
    [502, '<html>a proxy</html>', 'unavailable', true],
    [404, '', 'missing', false],
    [500, 'x'.repeat(10_000_000), 'unavailable', true],
  ] as const) {
    const { get } = await store(t, (_request, response) => response.writeHead(status).end(body))
    const thrown = await get().then(
      () => assert.fail('it answered'),
      (error: unknown) => error,
    )
    const { kind: found, again: repeat } = failure(thrown)
    assert.deepEqual([found, repeat], [kind, again], `${status} ${body.slice(0, 60)}`)
  }
})

test('a store that is not there or breaks off may be asked again; an abort ends the request', async (t) => {
  const { get } = await store(t, ({ socket }) => socket.destroy())
  await assert.rejects(get(), (thrown) => failure(thrown).again)
  const gone = await store(t, () => {})
  gone.server.close()
  await assert.rejects(gone.get(), (thrown) => failure(thrown).again)
  let closed = false
  const silent = await store(t, ({ socket }) => void socket.on('close', () => (closed = true)))
  const abort = new AbortController()
  const asked = silent.get(undefined, abort.signal)
  await once(silent.server, 'request')
  abort.abort()
  await assert.rejects(asked, { name: 'AbortError' })
  await eventually('the connection to end', () => closed)
})
