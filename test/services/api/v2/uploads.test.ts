// tests: shared/registry/write-attempt.ts
// tests: shared/db/blobs.ts, shared/db/uploads.ts, shared/registry/mount-blob.ts, shared/registry/push-blob.ts

import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { eventually } from '../../../support/eventually.ts'
import { sha256, sha512, testImage } from '../../../support/image.ts'
import { ociClient } from '../../../support/oci-client.ts'
import { rawHttp } from '../../../support/raw-http.ts'
import { storeNode, testNode } from '../../../support/region.ts'

const octets = { 'Content-Type': 'application/octet-stream' }

test('every way to push a blob ends with the blob: one POST, POST and PUT, a stream, chunks, both algorithms', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const bytes = randomBytes(100_000)
  const begin = async (query = '') => {
    const answer = await client.request('POST', `/v2/a/blobs/uploads/${query}`)
    assert.equal(answer.status, 202)
    assert.equal(answer.headers.get('range'), '0-0')
    assert.ok(answer.headers.get('docker-upload-uuid'))
    return answer.headers.get('location') ?? ''
  }
  for (const digestOf of [sha256, sha512]) {
    const digest = digestOf(bytes)
    const ways: [string, () => Promise<Response>][] = [
      ['one POST', () => client.request('POST', `/v2/a/blobs/uploads/?digest=${digest}`, { body: bytes })],
      [
        'POST and PUT',
        async () => client.request('PUT', `${await begin()}?digest=${digest}`, { body: bytes }),
      ],
      [
        'an announced algorithm',
        async () =>
          client.request(
            'PUT',
            `${await begin(`?digest-algorithm=${digest.slice(0, 6)}`)}?digest=${digest}`,
            { body: bytes },
          ),
      ],
      [
        'a stream',
        async () => {
          const location = await begin()
          const body = new ReadableStream({
            start(controller) {
              for (let from = 0; from < bytes.length; from += 30_000)
                controller.enqueue(bytes.subarray(from, from + 30_000))
              controller.close()
            },
          })
          const patched = await client.request('PATCH', location, { body })
          assert.equal(patched.headers.get('range'), `0-${bytes.length - 1}`)
          return client.request('PUT', `${patched.headers.get('location')}?digest=${digest}`)
        },
      ],
    ]
    for (const [way, push] of ways) {
      const pushed = await push()
      assert.equal(pushed.status, 201, `${way}: ${await pushed.text()}`)
      assert.equal(pushed.headers.get('location'), `/v2/a/blobs/${digest}`)
      assert.equal(pushed.headers.get('docker-content-digest'), digest)
      assert.match(pushed.headers.get('portolan-position') ?? '', /^eu:1:o\d+$/)
      const got = await client.get(`/v2/a/blobs/${digest}`)
      assert.deepEqual(got.body, bytes)
      assert.equal(got.headers.get('docker-content-digest'), digest)
      assert.equal((await client.request('DELETE', `/v2/a/blobs/${digest}`)).status, 202)
    }
  }
})

test('a chunk out of order is 416 and harmless; a stale Location tells the truth', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const bytes = randomBytes(2_000)
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  const patch = (start: number, end: number, body = bytes.subarray(start, end + 1)) =>
    client.request('PATCH', location, { headers: { ...octets, 'Content-Range': `${start}-${end}` }, body })
  const early = await patch(1_000, 1_999)
  assert.equal(early.status, 416)
  assert.equal(early.headers.get('range'), null, 'nothing received: 0-0 would read as one byte')
  assert.equal((await patch(0, 999)).status, 202)
  const again = await patch(0, 999)
  assert.equal(again.status, 416)
  assert.equal(again.headers.get('range'), '0-999')
  assert.equal(again.headers.get('location'), location)
  assert.equal(
    (await patch(1_000, 1_500, bytes.subarray(1_000, 2_000))).status,
    400,
    "a length that is not the range's",
  )
  const status = await client.request('GET', location)
  assert.equal(status.status, 204)
  assert.equal(status.headers.get('range'), '0-999')
  const wrongPut = await client.request('PUT', `${location}?digest=${sha256(bytes)}`, {
    headers: { ...octets, 'Content-Range': '500-1499' },
    body: bytes.subarray(500, 1_500),
  })
  assert.equal(wrongPut.status, 416, 'and the session survives')
  const ended = await client.request('PUT', `${location}?digest=${sha256(bytes)}`, {
    headers: { ...octets, 'Content-Range': '1000-1999' },
    body: bytes.subarray(1_000),
  })
  assert.equal(ended.status, 201)
  assert.deepEqual((await client.get(`/v2/a/blobs/${sha256(bytes)}`)).body, bytes)
})

test('I3: content without its digest is refused, in every way to send it, and is not there afterwards', async (t) => {
  const { url, region } = await testNode(t)
  const client = ociClient(url)
  const bytes = randomBytes(1_000)
  const wrong = sha256('something else')
  assert.equal(
    (await client.request('POST', `/v2/a/blobs/uploads/?digest=${wrong}`, { body: bytes })).status,
    400,
  )
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  await client.request('PATCH', location, { body: bytes })
  const refused = await client.request('PUT', `${location}?digest=${wrong}`)
  assert.equal(refused.status, 400)
  assert.match(await refused.text(), /DIGEST_INVALID/)
  assert.equal((await client.request('GET', location)).status, 404, 'the session is gone')
  for (const digest of [wrong, sha256(bytes)])
    assert.equal((await client.get(`/v2/a/blobs/${digest}`)).status, 404)
  for (const query of [
    '',
    '?digest=',
    '?digest=sha256:x',
    `?digest=${wrong}&digest=${sha256(bytes)}`,
    '?digest=md5:0',
  ]) {
    const open = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location')
    assert.equal((await client.request('PUT', `${open}${query}`, { body: bytes })).status, 400, query)
  }
  assert.deepEqual(await region.blobs.list('', 10), [], 'no bytes are left')
})

test('a body that ends early commits nothing, and the session is where it was', async (t) => {
  const { url, port, region } = await storeNode(t)
  const client = ociClient(url)
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  await client.request('PATCH', location, { body: Buffer.from('first') })
  // No reply comes, because the client disconnects.
  for (const request of [
    `PATCH ${location} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nonly this much`,
    `PUT ${location}?digest=${sha256('firstonly')} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nonly`,
  ])
    await rawHttp(port, [request], 100, 100)
  assert.equal((await client.request('GET', location)).headers.get('range'), '0-4')
  assert.equal((await client.request('PUT', `${location}?digest=${sha256('first')}`)).status, 201)
  await eventually(
    'what was sent in vain to be gone',
    async () => (await region.blobs.list('', 10)).length === 1,
  )
})

test('I4: of racing bodies exactly one joins the session, and never a mixture', async (t) => {
  const first = await testNode(t)
  const second = await testNode(t, { sharing: first })
  const clients = [ociClient(first.url), ociClient(second.url)]
  const bodies = Array.from({ length: 8 }, (_, index) => Buffer.alloc(200_000, `${index}`))
  const location = (await clients[0]?.request('POST', '/v2/a/blobs/uploads/'))?.headers.get('location') ?? ''
  const answers = await Promise.all(
    bodies.map((body, index) =>
      clients[index % 2]?.request('PATCH', location, {
        headers: { ...octets, 'Content-Range': '0-199999' },
        body,
      }),
    ),
  )
  const statuses = answers.map((answer) => answer?.status)
  assert.equal(statuses.filter((status) => status === 202).length, 1, String(statuses))
  assert.equal(statuses.filter((status) => status === 416).length, 7)
  const winner = bodies[statuses.indexOf(202)]
  assert.ok(winner)
  const puts = await Promise.all(
    clients.map((client) => client.request('PUT', `${location}?digest=${sha256(winner)}`)),
  )
  // One of them finishes the session; the other finds the blob that it wanted.
  assert.deepEqual(
    puts.map(({ status }) => status),
    [201, 201],
  )
  assert.deepEqual((await clients[1]?.get(`/v2/a/blobs/${sha256(winner)}`))?.body, winner)
  assert.equal((await first.region.blobs.list('', 20)).length, 1, 'the losers left nothing')
})

test('the same blob pushed by many at once is stored once', async (t) => {
  const { url, region } = await testNode(t)
  const client = ociClient(url)
  const bytes = randomBytes(50_000)
  const pushed = await Promise.all(
    Array.from({ length: 10 }, (_, index) =>
      client.request('POST', `/v2/r${index}/blobs/uploads/?digest=${sha256(bytes)}`, { body: bytes }),
    ),
  )
  assert.deepEqual(new Set(pushed.map(({ status }) => status)), new Set([201]))
  assert.equal((await region.blobs.list('', 20)).length, 1)
  assert.deepEqual((await client.get(`/v2/r7/blobs/${sha256(bytes)}`)).body, bytes)
})

test('a mount is 201 with the exact Location or an upload, never an error', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('from/here', image)
  const digest = sha256(image.blobs[1] ?? '')
  const mounted = await client.request('POST', `/v2/to/there/blobs/uploads/?mount=${digest}&from=from/here`)
  assert.equal(mounted.status, 201)
  assert.equal(mounted.headers.get('location'), `/v2/to/there/blobs/${digest}`)
  assert.equal((await client.get(`/v2/to/there/blobs/${digest}`)).status, 200)
  assert.equal(
    (await client.request('POST', `/v2/any/blobs/uploads/?mount=${digest}`)).status,
    201,
    'without from',
  )
  for (const query of [
    `mount=${digest}&from=nowhere`,
    `mount=${sha256('unknown')}&from=from/here`,
    `mount=${sha256('unknown')}`,
    'mount=bad',
    `mount=${digest}&from=BAD`,
  ]) {
    const answer = await client.request('POST', `/v2/other/blobs/uploads/?${query}`)
    assert.equal(answer.status, 202, query)
    assert.match(answer.headers.get('location') ?? '', /^\/v2\/other\/blobs\/uploads\//)
  }
  assert.equal(
    (await client.get('/v2/other/tags/list')).status,
    404,
    'a mount that failed leaves no repository',
  )
})

test('A8: deleted in one repository stays deleted there, on every node, whatever another does with the digest', async (t) => {
  const first = await testNode(t)
  const second = await testNode(t, { sharing: first })
  const [a, b] = [ociClient(first.url), ociClient(second.url)]
  const bytes = randomBytes(100)
  const digest = sha256(bytes)
  for (const name of ['a/x', 'b/y']) await a.pushBlob(name, bytes)
  for (const client of [a, b]) assert.equal((await client.get(`/v2/a/x/blobs/${digest}`)).status, 200)
  await a.request('DELETE', `/v2/a/x/blobs/${digest}`)
  for (const client of [a, b]) {
    assert.equal((await client.get(`/v2/b/y/blobs/${digest}`)).status, 200)
    assert.equal((await client.request('HEAD', `/v2/b/y/blobs/${digest}`)).status, 200)
    assert.equal((await client.get(`/v2/a/x/blobs/${digest}`)).status, 404)
  }
})

test("a session is its repository's and its region's; ids that were never given out are unknown", async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const location = (await client.request('POST', '/v2/a/x/blobs/uploads/')).headers.get('location') ?? ''
  const id = location.split('/').at(-1)
  for (const path of [
    `/v2/b/y/blobs/uploads/${id}`,
    `/v2/a/x/blobs/uploads/us.${randomUUID()}`,
    `/v2/a/x/blobs/uploads/eu.${randomUUID()}`,
    '/v2/a/x/blobs/uploads/eu.x',
    '/v2/a/x/blobs/uploads/0',
  ]) {
    for (const method of ['GET', 'PATCH', 'PUT', 'DELETE']) {
      const answer = await client.request(method, `${path}${method === 'PUT' ? `?digest=${sha256('')}` : ''}`)
      assert.equal(answer.status, 404, `${method} ${path}`)
      assert.match(await answer.text(), /BLOB_UPLOAD_UNKNOWN/)
    }
  }
  assert.equal((await client.request('GET', location)).status, 204, 'and it is still there')
  assert.equal((await client.request('DELETE', location)).status, 204)
  assert.equal((await client.request('GET', location)).status, 404)
  assert.equal((await client.request('DELETE', location)).status, 404)
})

test('D3: a repository has a bounded number of open uploads', async (t) => {
  const { url } = await testNode(t, { env: { PORTOLAN_UPLOADS_PER_REPOSITORY_MAX: '3' } })
  const client = ociClient(url)
  const begin = async (name: string) =>
    (await client.request('POST', `/v2/${name}/blobs/uploads/`)).headers.get('location') ?? ''
  // A session without a byte costs nothing and does not count.
  const locations = await Promise.all(Array.from({ length: 10 }, () => begin('a')))
  const patch = (location: string | undefined, body: Buffer) =>
    client.request('PATCH', location ?? '', { body })
  for (const location of locations.slice(0, 3))
    assert.equal((await patch(location, randomBytes(10))).status, 202)
  for (const size of [10, 1_000_000]) {
    const refused = await patch(locations[3], randomBytes(size))
    assert.equal(refused.status, 429)
    assert.equal(refused.headers.get('retry-after'), '60')
  }
  assert.equal((await patch(await begin('b'), randomBytes(10))).status, 202)
  const ended = await client.request('DELETE', locations[0] ?? '')
  assert.equal(ended.status, 204)
  assert.equal((await patch(locations[3], randomBytes(1_000_000))).status, 202, 'there is room again')
})

test('below the floor of free space pushes are 503 and pulls go on', async (t) => {
  const first = await testNode(t)
  await ociClient(first.url).pushBlob('a', Buffer.from('kept'))
  const full = await testNode(t, { sharing: first, env: { PORTOLAN_FREE_BYTES_MIN: '1000000GiB' } })
  const client = ociClient(full.url)
  const bytes = randomBytes(20_000)
  const refused = await client.request('POST', `/v2/a/blobs/uploads/?digest=${sha256(bytes)}`, {
    body: bytes,
  })
  assert.equal(refused.status, 503)
  assert.match(await refused.text(), /UNAVAILABLE/)
  assert.equal((await client.get(`/v2/a/blobs/${sha256('kept')}`)).body.toString(), 'kept')
})

test('D3: a writer that stands still is cut by the minimum rate, and its session is where it was', async (t) => {
  const { url, port } = await testNode(t, {
    env: { PORTOLAN_RATE_WINDOW_SECONDS: '1', PORTOLAN_RATE_BYTES_PER_SECOND_MIN: '1KiB' },
  })
  const client = ociClient(url)
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  await client.request('PATCH', location, { body: 'first' })
  const slow = await rawHttp(
    port,
    [`PATCH ${location} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nbut then`],
    10_000,
  )
  assert.equal(slow.closed, true)
  assert.equal((await client.request('GET', location)).headers.get('range'), '0-4')
})
