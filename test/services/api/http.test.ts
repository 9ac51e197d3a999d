// HTTP on raw sockets: requests that no client library sends but attackers do.

import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { test } from 'node:test'
import fc from 'fast-check'
import { errorTable } from '#shared/errors.ts'
import { accountsNode, basic } from '../../support/accounts.ts'
import { IMAGE, sha256, testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { rawHttp } from '../../support/raw-http.ts'
import { testNode } from '../../support/region.ts'

test('every answer under /v2 says its version and length, HEAD like GET, and errors are the envelope', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  await client.pushImage('a', testImage(), 'v1')
  for (const path of [
    '/v2/',
    '/v2/_catalog',
    '/v2/a/tags/list',
    '/v2/a/manifests/v1',
    '/v2/a/manifests/none',
    '/v2/A/tags/list',
    '/v2/nothing',
    '/v2/a/manifests/sha256:bad',
  ]) {
    const got = await client.get(path)
    assert.equal(got.headers.get('docker-distribution-api-version'), 'registry/2.0', path)
    assert.equal(got.headers.get('content-length'), String(got.body.length), path)
    const head = await client.request('HEAD', path)
    assert.equal(head.status, got.status, path)
    assert.equal(head.headers.get('content-length'), got.headers.get('content-length'), path)
    assert.equal(head.headers.get('content-type'), got.headers.get('content-type'), path)
    if (got.status < 400) continue
    assert.equal(got.headers.get('content-type'), 'application/json')
    const { errors } = JSON.parse(got.body.toString()) as {
      errors: { code: keyof typeof errorTable; message: string }[]
    }
    assert.ok(
      errors.length > 0 && errors.every(({ code, message }) => code in errorTable && message !== ''),
      path,
    )
  }
})

test('a method that a path does not have is 405 with those it has; a path that is none is 404', async (t) => {
  const { url, port } = await testNode(t)
  const client = ociClient(url)
  for (const [method, path, allow] of [
    ['POST', '/v2/a/manifests/v1', 'GET, HEAD, PUT, DELETE'],
    ['PUT', '/v2/', 'GET, HEAD'],
    ['GET', '/v2/a/blobs/uploads/', 'POST'],
    ['OPTIONS', '/v2/a/tags/list', 'GET, HEAD'],
  ] as const) {
    const answer = await client.request(method, path)
    assert.equal(answer.status, 405)
    assert.equal(answer.headers.get('allow'), allow)
    assert.match(await answer.text(), /UNSUPPORTED/)
  }
  assert.equal(
    (await rawHttp(port, ['PROPFIND /v2/a/tags/list HTTP/1.1\r\nHost: h\r\n\r\n'])).statuses[0],
    405,
  )
  for (const path of ['/', '/favicon.ico', '/v1/', '/v2x', '/token', '/v2/a/b/c'])
    assert.equal((await client.get(path)).status, 404, path)
})

test("clients' odd requests work: POST with JSON and no body, no Content-Type at all, a form with a charset", async (t) => {
  const { url, port } = await testNode(t)
  const client = ociClient(url)
  const begun = await client.request('POST', '/v2/a/blobs/uploads/', {
    headers: { 'Content-Type': 'application/json' },
  })
  assert.equal(begun.status, 202)
  const location = begun.headers.get('location')
  const raw = await rawHttp(port, [
    `PATCH ${location} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
  ])
  assert.deepEqual(raw.statuses, [202])
  assert.match(raw.text, /\r\nRange: 0-4\r\n/)
  const ended = await rawHttp(port, [
    `PUT ${location}?digest=${sha256('hello')} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n`,
  ])
  assert.deepEqual(ended.statuses, [201])
  const manifest = await rawHttp(port, [
    `PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: h\r\nContent-Type: ${IMAGE};charset=utf-8\r\nContent-Length: 2\r\n\r\n{}`,
  ])
  assert.deepEqual(manifest.statuses, [400])
})

test('a client that asks before it sends is told to only when its request is worth it', async (t) => {
  const node = await accountsNode(t)
  const body = 'hello'
  const head = (authorization: string) =>
    `POST /v2/a/blobs/uploads/?digest=${sha256(body)} HTTP/1.1\r\nHost: h\r\n${authorization}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n`
  const refused = await rawHttp(node.port, [head('')])
  assert.ok(!refused.text.includes('100 Continue'))
  assert.deepEqual(refused.statuses, [401])
  const accepted = await rawHttp(
    node.port,
    [head(`Authorization: ${basic({ name: 'alice', password: 'alice-planted-secret' })}\r\n`), body],
    1_500,
  )
  assert.ok(accepted.text.includes('100 Continue'))
  assert.deepEqual(accepted.statuses, [201])
})

test('T1: what two parsers could read as one or two requests is refused, and the connection with it', async (t) => {
  const { port } = await testNode(t)
  const smuggled = 'GET /v2/_catalog HTTP/1.1\r\nHost: h\r\n\r\n'
  const post = 'POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: h\r\n'
  const corpus: Record<string, string> = {
    'length and chunked': `${post}Content-Length: ${smuggled.length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    'two lengths': `${post}Content-Length: 0\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
    'a list of lengths': `${post}Content-Length: 0, 0\r\n\r\n${smuggled}`,
    'a signed length': `${post}Content-Length: +0\r\n\r\n${smuggled}`,
    'an odd encoding': `${post}Transfer-Encoding: xchunked\r\n\r\n${smuggled}`,
    'encoding twice': `${post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n${smuggled}`,
    'a space before the colon': `${post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    'a folded header': `${post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    'a bare line feed': `${post}X: y\nContent-Length: 5\r\n\r\n${smuggled}`,
    'a NUL in a header': `${post}X: a\0b\r\n\r\n`,
    'a chunk size that overflows': `${post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n${smuggled}`,
    'a chunk size with a sign': `${post}Transfer-Encoding: chunked\r\n\r\n-1\r\n${smuggled}`,
    'no host': 'GET /v2/ HTTP/1.1\r\n\r\n',
  }
  for (const [what, request] of Object.entries(corpus)) {
    const { statuses, text, closed } = await rawHttp(port, [request])
    assert.ok(statuses.length <= 1 || what === 'two lengths', `${what}: ${statuses}`)
    for (const status of statuses) assert.ok(status >= 400 && status < 500, `${what}: ${statuses}`)
    assert.ok(!text.includes('repositories'), what)
    assert.ok(closed, `${what}: the connection is closed`)
  }
})

test('T1: a body that was not read is never taken for the next request', async (t) => {
  const node = await accountsNode(t)
  const hidden = 'GET /livez HTTP/1.1\r\nHost: h\r\n\r\n'
  const answer = await rawHttp(node.port, [
    `POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: h\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`,
  ])
  assert.deepEqual(answer.statuses, [401])
})

test('T1: an absolute target and hop-by-hop tricks give no rights', async (t) => {
  const node = await accountsNode(t)
  for (const request of [
    'GET http://127.0.0.1/v2/_catalog HTTP/1.1\r\nHost: h\r\n\r\n',
    'GET /v2/_catalog HTTP/1.1\r\nHost: h\r\nConnection: Authorization\r\n\r\n',
    'GET /v2/_catalog HTTP/1.0\r\n\r\n',
    'GET //v2/_catalog HTTP/1.1\r\nHost: h\r\n\r\n',
    'GET /v2/../v2/_catalog HTTP/1.1\r\nHost: h\r\n\r\n',
  ]) {
    const { statuses } = await rawHttp(node.port, [request])
    assert.ok([401, 400, 404].includes(statuses[0] ?? 0), `${request}: ${statuses}`)
  }
})

test('D8: headers beyond the limit are 431, and the next connection is served', async (t) => {
  const { port } = await testNode(t)
  const flood = await rawHttp(port, [`GET /v2/ HTTP/1.1\r\nHost: h\r\nX: ${'x'.repeat(40_000)}\r\n\r\n`])
  assert.deepEqual(flood.statuses, [431])
  assert.match(flood.text, /"errors"/)
  const many = await rawHttp(port, [`GET /v2/ HTTP/1.1\r\nHost: h\r\n${'a: b\r\n'.repeat(10_000)}\r\n`])
  assert.ok([431, 400].includes(many.statuses[0] ?? 0))
  assert.deepEqual((await rawHttp(port, ['GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n'])).statuses, [200])
  const long = await rawHttp(port, [`GET /v2/${'a'.repeat(10_000)}/tags/list HTTP/1.1\r\nHost: h\r\n\r\n`])
  assert.deepEqual(long.statuses, [414])
})

test('D2: a manifest beyond 4 MiB is 413 after little of it, with a length or without', async (t) => {
  const { port } = await testNode(t)
  const announced = await rawHttp(
    port,
    [
      `PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: h\r\nContent-Type: ${IMAGE}\r\nContent-Length: 5242880\r\n\r\n{`,
    ],
    3_000,
  )
  assert.deepEqual(announced.statuses, [413])
  assert.ok(announced.closed)
  const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`
  const endless = await rawHttp(
    port,
    [
      `PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: h\r\nContent-Type: ${IMAGE}\r\nTransfer-Encoding: chunked\r\n\r\n`,
      ...Array.from({ length: 100 }, () => chunk),
    ],
    3_000,
  )
  assert.deepEqual(endless.statuses, [413])
  assert.ok(endless.closed)
  assert.match(announced.text, /MANIFEST_INVALID/)
})

test('I7: whatever path is sent, the answer is a client error and no file is made', async (t) => {
  const { port, region } = await testNode(t)
  // The check of the store writes a probe and removes it every few seconds.
  const files = async () =>
    (await readdir(region.config.dataDir, { recursive: true }))
      .filter((name) => !name.endsWith('.probe'))
      .sort()
  const before = await files()
  const piece = fc.constantFrom(
    '..',
    '%2e%2e',
    '%2f',
    '%00',
    '\\',
    ';',
    '//',
    '/',
    '%c0%ae',
    '%252e',
    'a',
    'blobs',
    'manifests',
    'uploads',
    'tags/list',
    'sha256:',
    '~',
    '%',
    '?',
    '\u00ff',
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece, { minLength: 1, maxLength: 10 }),
      fc.constantFrom('GET', 'PUT', 'DELETE', 'POST', 'PATCH'),
      async (pieces, method) => {
        const { statuses } = await rawHttp(
          port,
          [
            Buffer.from(
              `${method} /v2/a/${pieces.join('')} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
              'latin1',
            ),
          ],
          2_000,
        )
        assert.equal(statuses.length, 1)
        const [status = 0] = statuses
        assert.ok(
          (status >= 400 && status < 500) || status === 202,
          `${method} ${pieces.join('')}: ${status}`,
        )
      },
    ),
    { numRuns: 300 },
  )
  assert.deepEqual(await files(), before)
})

test('fuzz: no header makes a 500', async (t) => {
  const { url, port } = await testNode(t)
  const image = testImage()
  await ociClient(url).pushImage('a', image, 'v1')
  const name = fc.constantFrom(
    'Range',
    'If-Range',
    'If-None-Match',
    'If-Match',
    'Accept',
    'Authorization',
    'Content-Range',
    'Content-Type',
    'traceparent',
    'X-Forwarded-For',
    'User-Agent',
    'Expect',
  )
  const value = fc.oneof(
    fc.stringMatching(/^[ -~]{0,60}$/),
    fc.constantFrom(
      'bytes=0-',
      'bytes=-1',
      '*',
      '"x"',
      'W/"',
      `"${image.digest}"`,
      'Basic Og==',
      'Bearer x',
      '0-0',
      '-',
      ',',
    ),
  )
  const path = fc.constantFrom(
    'manifests/v1',
    `manifests/${image.digest}`,
    `blobs/${sha256(image.blobs[1] ?? '')}`,
    'tags/list',
    `referrers/${image.digest}`,
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(name, value), { maxLength: 4 }),
      path,
      fc.constantFrom('GET', 'HEAD', 'PUT'),
      async (headers, target, method) => {
        const lines = headers.map(([header, text]) => `${header}: ${text}\r\n`).join('')
        const { statuses } = await rawHttp(
          port,
          [`${method} /v2/a/${target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n${lines}\r\n`],
          2_000,
        )
        assert.equal(statuses.length, 1)
        assert.ok((statuses[0] ?? 500) < 500, lines)
      },
    ),
    { numRuns: 300 },
  )
})

test('I1: a digest that is stored keeps its type: pushed again as another it is refused', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [] }))
  const put = (type: string) =>
    client.request('PUT', '/v2/a/manifests/v1', { headers: { 'Content-Type': type }, body: bytes })
  assert.equal((await put('application/vnd.oci.image.index.v1+json')).status, 201)
  const refused = await put('application/vnd.docker.distribution.manifest.list.v2+json')
  assert.equal(refused.status, 400)
  assert.match(await refused.text(), /MANIFEST_INVALID/)
  assert.equal(
    (await client.get(`/v2/a/manifests/${sha256(bytes)}`)).headers.get('content-type'),
    'application/vnd.oci.image.index.v1+json',
  )
})

test('D4: a manifest of many descriptors is checked in one statement', async (t) => {
  const { url, region } = await testNode(t)
  const client = ociClient(url)
  const config = Buffer.from('{}')
  await client.pushBlob('a', config)
  let statements = 0
  const rows = region.db.rows
  region.db.rows = (statement, values) => {
    statements++
    return rows(statement, values)
  }
  const layers = Array.from({ length: 9_000 }, (_, index) => ({
    mediaType: 'a/b',
    digest: sha256(`${index}`),
    size: 1,
  }))
  const refused = await client.pushManifest(
    'a',
    'v1',
    testImage({ config: { mediaType: 'a/b', digest: sha256(config), size: 2 }, layers }),
  )
  assert.equal(refused.status, 404)
  assert.equal(statements, 1)
  assert.equal(((await refused.json()) as { errors: unknown[] }).errors.length, 9_000)
})
