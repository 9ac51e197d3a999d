// Rules for every request on every surface: it gets an envelope, a log line and a metric, and the caller is known
// before a body is read. Requests are bytes on a socket, because client libraries do not send most of them.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { accountsNode } from '../../support/accounts.ts'
import { eventually } from '../../support/eventually.ts'
import { IMAGE, sha256 } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { floodHttp, rawHttp } from '../../support/raw-http.ts'
import { testNode } from '../../support/region.ts'

const MIB = 1024 * 1024

interface RequestLine {
  route: string
  method: string
  status: number
  code?: string
}

/** The request lines of a log. */
function requestLines(logLines: readonly string[]): RequestLine[] {
  return logLines.map((line) => JSON.parse(line) as RequestLine).filter(({ route }) => route !== undefined)
}

const surfaces: readonly (readonly [method: string, target: string, status: number, route: string])[] = [
  ['POST', '/v2/a/blobs/uploads/', 401, 'uploads'],
  ['PATCH', '/v2/a/blobs/uploads/eu.00000000-0000-0000-0000-000000000000', 401, 'upload'],
  ['PUT', '/v2/a/manifests/v1', 401, 'manifest'],
  ['POST', '/api/v1/webhooks', 401, 'webhooks'],
  ['POST', '/token', 401, 'token'],
]

test('a Content-Type that is malformed, empty or sent twice changes nothing: 401, an envelope, a log line, a number', async (t) => {
  const node = await accountsNode(t)
  const form = 'grant_type=password&username=x&password=y'
  for (const [method, target, status, route] of surfaces) {
    for (const types of [
      ['nonsense'],
      [''],
      ['a/b', 'c/d'],
      ['a/b;;=;'],
      ['/'],
      ['application/json; charset'],
    ]) {
      node.logLines.length = 0
      const where = `${method} ${target} ${JSON.stringify(types)}`
      const lines = types.map((type) => `Content-Type: ${type}\r\n`).join('')
      const answer = await rawHttp(node.port, [
        `${method} ${target} HTTP/1.1\r\nHost: h\r\n${lines}Connection: close\r\nContent-Length: ${form.length}\r\n\r\n${form}`,
      ])
      assert.deepEqual(answer.statuses, [status], where)
      assert.match(answer.text, /"errors":\[\{"code":"UNAUTHORIZED"/, where)
      await eventually('the log line', () => requestLines(node.logLines).length > 0)
      const logged = requestLines(node.logLines)
      assert.deepEqual(
        logged.map((line) => [line.route, line.method, line.status]),
        [[route, method, status]],
        where,
      )
    }
    const metrics = await node.region.metrics.text()
    assert.ok(
      metrics.includes(`portolan_requests_total{route="${route}",method="${method}",status="401"}`),
      route,
    )
  }
})

test('of a body that nobody asked for, little is read on any surface, whatever its type', async (t) => {
  const node = await accountsNode(t)
  const open = await testNode(t)
  const heads: [number, string][] = [
    ...surfaces
      .filter(([, target]) => target !== '/token')
      .map(([method, target]): [number, string] => [node.port, `${method} ${target}`]),
    [node.port, 'POST /nothing'],
    [node.port, 'PROPFIND /v2/a/tags/list'],
    [node.port, 'MKCOL /api/v1/webhooks'],
    [node.port, 'DELETE /readyz'],
    [node.port, 'POST /token'],
    // Returns 2xx without reading the body.
    [open.port, 'GET /v2/'],
    [open.port, 'GET /livez'],
    [open.port, 'POST /v2/a/blobs/uploads/'],
  ]
  for (const [port, head] of heads) {
    for (const type of ['', 'Content-Type: nonsense\r\n']) {
      const flood = await floodHttp(
        port,
        `${head} HTTP/1.1\r\nHost: h\r\n${type}Content-Length: ${600 * MIB}\r\n\r\n`,
        64 * MIB,
      )
      // The kernel buffers of both ends hold a few MiB that are not read.
      assert.ok(flood.bytesTaken < 24 * MIB, `${head} ${type}: ${flood.bytesTaken} bytes`)
    }
  }
})

test('a method nobody knows is 405 with Allow, one the parser refuses is 400: envelope, log line and number for both', async (t) => {
  const node = await testNode(t)
  const asked = async (request: string) => {
    node.logLines.length = 0
    const answer = await rawHttp(node.port, [request])
    await eventually('the log line', () => requestLines(node.logLines).length > 0)
    return { ...answer, logged: requestLines(node.logLines) }
  }
  for (const [method, target, allow] of [
    ['PROPFIND', '/v2/a/tags/list', 'GET, HEAD'],
    ['MKCOL', '/v2/', 'GET, HEAD'],
    ['LOCK', '/api/v1/events', 'GET, HEAD'],
    ['PURGE', '/api/v1/webhooks', 'GET, HEAD, POST'],
    ['QUERY', '/api/v1/schemas', 'GET, HEAD'],
    ['M-SEARCH', '/livez', 'GET, HEAD'],
    ['TRACE', '/readyz', 'GET, HEAD'],
  ]) {
    for (const body of ['', 'Content-Type: text/xml\r\nContent-Length: 4\r\n']) {
      const { statuses, text, logged } = await asked(
        `${method} ${target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n${body}\r\n${body === '' ? '' : '<a/>'}`,
      )
      assert.deepEqual(statuses, [405], `${method} ${target} ${body}`)
      assert.match(text, new RegExp(`\r\nAllow: ${allow}\r\n`), `${method} ${target}`)
      assert.match(text, /"code":"UNSUPPORTED"/)
      assert.deepEqual(
        logged.map(({ method: of, status }) => [of, status]),
        [[method, 405]],
      )
    }
  }
  for (const request of [
    'BREW /v2/ HTTP/1.1\r\nHost: h\r\n\r\n',
    'get /v2/ HTTP/1.1\r\nHost: h\r\n\r\n',
    'CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n',
    'no request at all\r\n\r\n',
  ]) {
    const { statuses, text, closed, logged } = await asked(request)
    assert.equal(statuses.length, 1, request)
    assert.ok([400, 405].includes(statuses[0] ?? 0), request)
    assert.match(text, /"errors":\[\{"code":"(REQUEST_INVALID|UNSUPPORTED)"/, request)
    assert.ok(closed, request)
    assert.deepEqual(
      logged.map(({ status }) => status),
      statuses,
      request,
    )
  }
  const metrics = await node.region.metrics.text()
  assert.match(metrics, /portolan_requests_total\{route="unparsable",method="other",status="400"\} 3/)
  assert.match(metrics, /portolan_requests_total\{route="tags",method="other",status="405"\} 2/)
})

test('every surface logs each request once and counts it', async (t) => {
  const node = await testNode(t)
  const targets: [string, string, number][] = [
    ['/v2/', 'base', 200],
    ['/livez', 'live', 200],
    ['/readyz', 'ready', 200],
    ['/token', 'token', 404],
    ['/api/v1/region', 'region', 200],
    ['/api/v1/schemas', 'schemas', 200],
    ['/api/v1/events', 'events', 200],
    ['/api/v1/webhooks', 'webhooks', 200],
    ['/api/v1/nothing', 'unknown', 404],
    ['/peer/v1/log', 'peer-log', 404],
    ['/favicon.ico', 'unknown', 404],
    ['/%zz', 'unknown', 404],
    ['*', 'unknown', 404],
  ]
  for (const [target, route, status] of targets) {
    node.logLines.length = 0
    const { statuses } = await rawHttp(node.port, [
      `GET ${target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`,
    ])
    assert.deepEqual(statuses, [status], target)
    await eventually('the log line', () => requestLines(node.logLines).length > 0)
    assert.deepEqual(
      requestLines(node.logLines).map((line) => [line.route, line.status]),
      [[route, status]],
      target,
    )
    assert.ok(
      (await node.region.metrics.text()).includes(`{route="${route}",method="GET",status="${status}"}`),
      target,
    )
  }
})

test('two Host fields, none, or a malformed one are 400 with the envelope (RFC 9112, 3.2)', async (t) => {
  const { port, logLines } = await testNode(t)
  for (const [what, head] of Object.entries({
    'two equal': 'HTTP/1.1\r\nHost: h\r\nHost: h\r\n',
    'two different': 'HTTP/1.1\r\nHost: h\r\nhOsT: other\r\n',
    'two in HTTP/1.0': 'HTTP/1.0\r\nHost: h\r\nHost: h\r\n',
    none: 'HTTP/1.1\r\n',
    malformed: 'HTTP/1.1\r\nHost: a b\r\n',
    'with a path': 'HTTP/1.1\r\nHost: h/v2\r\n',
  })) {
    logLines.length = 0
    const { statuses, text, closed } = await rawHttp(port, [`GET /v2/ ${head}\r\n`])
    assert.deepEqual(statuses, [400], what)
    assert.match(text, /"code":"REQUEST_INVALID"/, what)
    assert.ok(closed, what)
    await eventually('the log line', () => requestLines(logLines).length === 1)
  }
  for (const head of ['HTTP/1.1\r\nHost: [::1]:5000\r\n', 'HTTP/1.1\r\nHost:\r\n', 'HTTP/1.0\r\n']) {
    assert.deepEqual((await rawHttp(port, [`GET /v2/ ${head}\r\n`])).statuses, [200], head)
  }
})

test('an absolute target is its path, and its authority is the host (RFC 9112, 3.2.2)', async (t) => {
  const node = await accountsNode(t)
  const { statuses, text } = await rawHttp(node.port, [
    'GET http://registry.example:5000/v2/ HTTP/1.1\r\nHost: other\r\n\r\n',
  ])
  assert.deepEqual(statuses, [401])
  assert.match(text, /realm="http:\/\/registry\.example:5000\/token"/)
  const { port } = await testNode(t)
  for (const target of [
    'http://h/v2/',
    'HTTP://h/v2/',
    'https://h/v2/',
    'http://h/livez',
    'http://h/v2/_catalog?n=1',
  ]) {
    assert.deepEqual(
      (await rawHttp(port, [`GET ${target} HTTP/1.1\r\nHost: h\r\n\r\n`])).statuses,
      [200],
      target,
    )
  }
  for (const [target, status] of [
    ['http://h', 404],
    ['http://h?x', 404],
    ['http:///v2/', 400],
    ['http://user:secret@h/v2/', 400],
    ['http://h/../v2/', 404],
    ['ftp://h/v2/', 400],
  ] as const) {
    assert.deepEqual(
      (await rawHttp(port, [`GET ${target} HTTP/1.1\r\nHost: h\r\n\r\n`])).statuses,
      [status],
      target,
    )
  }
})

test('an expectation that nobody can meet is 417 with the envelope (RFC 9110, 10.1.1)', async (t) => {
  const { port } = await testNode(t)
  const { statuses, text } = await rawHttp(port, ['GET /v2/ HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n'])
  assert.deepEqual(statuses, [417])
  assert.match(text, /"code":"REQUEST_INVALID"/)
})

test('garbage behind a request never gets into its answer: the answer ends whole, then the connection', async (t) => {
  const node = await testNode(t)
  const client = ociClient(node.url)
  const bytes = Buffer.alloc(8 * MIB, 'x')
  await client.pushBlob('a', bytes)
  for (const garbage of ['garbage\r\n\r\n', 'GET /v2/ HTTP/1.1\r\nHost : h\r\n\r\n']) {
    const socket = connect(node.port, '127.0.0.1')
    await once(socket, 'connect')
    socket.write(`GET /v2/a/blobs/${sha256(bytes)} HTTP/1.1\r\nHost: h\r\n\r\n`)
    const chunks: Buffer[] = []
    const [first] = (await once(socket, 'data')) as [Buffer]
    chunks.push(first)
    // The reply is in progress and its reader has stalled, so anything written now would end up inside the reply.
    socket.pause()
    socket.write(garbage)
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.resume()
    await once(socket, 'close')
    const all = Buffer.concat(chunks)
    const body = all.subarray(all.indexOf('\r\n\r\n') + 4)
    assert.equal(sha256(body.subarray(0, bytes.length)), sha256(bytes), garbage)
    assert.match(body.subarray(bytes.length).toString(), /^(HTTP\/1\.1 400 [\s\S]*)?$/)
  }
  // Here the reply to the first request has not even started. It still comes first.
  const read = node.region.lookups.read
  const { promise: slow, resolve: go } = Promise.withResolvers<void>()
  node.region.lookups.read = async (key) => {
    await slow
    return read(key)
  }
  const answer = rawHttp(
    node.port,
    [`HEAD /v2/a/blobs/${sha256(bytes)} HTTP/1.1\r\nHost: h\r\n\r\n`, 'garbage\r\n\r\n'],
    2_000,
  )
  await new Promise((resolve) => setTimeout(resolve, 100))
  go()
  const { statuses } = await answer
  assert.equal(statuses[0], 200, 'the first answer is that of the first request')
})

test('a body that stops being a body is 400 and ends its connection, not the process', async (t) => {
  const node = await testNode(t)
  const location = (await ociClient(node.url).request('POST', '/v2/a/blobs/uploads/')).headers.get('location')
  const { statuses, text, closed } = await rawHttp(
    node.port,
    [`PATCH ${location} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n`],
    3_000,
  )
  assert.deepEqual(statuses, [400])
  assert.match(text, /"code":"REQUEST_INVALID"/)
  assert.ok(closed)
  assert.equal((await ociClient(node.url).request('GET', location ?? '')).headers.get('range'), '0-0')
})

test('who sends garbage and stays does not keep the connection', async (t) => {
  const { port } = await testNode(t)
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  socket.on('error', () => {})
  socket.write('garbage\r\n\r\n')
  socket.resume()
  await once(socket, 'end')
  // A half-open connection accepts these bytes; a closed one resets.
  await eventually('the connection to be gone', () => {
    socket.write('x')
    return socket.destroyed
  })
})

test('a manifest whose Content-Type came twice is refused: two readers could take two types', async (t) => {
  const { port } = await testNode(t)
  const { statuses } = await rawHttp(port, [
    `PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: h\r\nContent-Type: ${IMAGE}\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\n{}`,
  ])
  assert.deepEqual(statuses, [400])
})

test('a process that drains says Connection: close on each answer, also of requests that began before', async (t) => {
  const node = await testNode(t, { env: { PORTOLAN_DRAIN_SECONDS: '20' } })
  const location = (await ociClient(node.url).request('POST', '/v2/a/blobs/uploads/')).headers.get('location')
  const socket = connect(node.port, '127.0.0.1')
  const kept = connect(node.port, '127.0.0.1')
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk.toString()
  })
  await once(socket, 'connect')
  socket.write(`PATCH ${location} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel`)
  await eventually('the upload to be under way', async () =>
    (await node.region.metrics.text()).includes('portolan_received_bytes_total 3'),
  )
  const stopping = node.stop()
  await eventually('new connections to be refused', () =>
    fetch(`${node.url}/livez`).then(
      () => false,
      () => true,
    ),
  )
  socket.write('lo')
  await once(socket, 'close', { signal: AbortSignal.timeout(10_000) })
  assert.match(text, /^HTTP\/1\.1 202 [\s\S]*\r\nConnection: close\r\n/)
  await stopping
  kept.destroy()
})

test('asking for readiness makes no check, and clients are not told what is wrong', async (t) => {
  const node = await testNode(t)
  const check = node.region.blobs.check.bind(node.region.blobs)
  let checks = 0
  node.region.blobs.check = () => {
    checks++
    return check()
  }
  for (let asked = 0; asked < 200; asked++) assert.equal((await fetch(`${node.url}/readyz`)).status, 200)
  assert.ok(checks < 10, `${checks} checks`)
  node.region.blobs.check = () => Promise.reject(new Error('bucket planted-bucket is away'))
  await eventually(
    'the process to be unready',
    async () => (await fetch(`${node.url}/readyz`)).status === 503,
    20_000,
  )
  assert.equal(await (await fetch(`${node.url}/readyz`)).text(), 'not ready\n')
  assert.match((await node.region.readiness()).reasons.join(), /blob store: bucket planted-bucket is away/)
})
