// How uploads end if the network fails: lost replies, clients that disconnect.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { eventually } from '../../../support/eventually.ts'
import { sha256 } from '../../../support/image.ts'
import { ociClient } from '../../../support/oci-client.ts'
import { testNode } from '../../../support/region.ts'

test('a closing PUT whose answer was lost is repeated: 201 when the digest is there, else 404', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const bytes = randomBytes(50_000)
  const put = (location: string, digest: string, body?: Buffer) =>
    client.request('PUT', `${location}?digest=${digest}`, body === undefined ? {} : { body })
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  assert.equal((await put(location, sha256(bytes), bytes)).status, 201)
  for (const body of [undefined, bytes]) {
    const again = await put(location, sha256(bytes), body)
    assert.equal(again.status, 201)
    assert.equal(again.headers.get('location'), `/v2/a/blobs/${sha256(bytes)}`)
    assert.equal(again.headers.get('docker-content-digest'), sha256(bytes))
  }
  const unknown = await put(location, sha256('something else'))
  assert.equal(unknown.status, 404)
  assert.match(await unknown.text(), /BLOB_UPLOAD_UNKNOWN/)
  // An id of another repository, and one that never existed. Asking for an id does not create it.
  assert.equal((await put(location.replace('/v2/a/', '/v2/b/'), sha256(bytes))).status, 404)
  assert.equal((await put('/v2/a/blobs/uploads/x', sha256(bytes))).status, 404)
  assert.equal((await put(location.replace('eu.', 'us.'), sha256(bytes))).status, 404)
  assert.equal((await client.request('HEAD', `/v2/b/blobs/${sha256(bytes)}`)).status, 404)
  // What was deleted since is no longer there.
  assert.equal((await client.request('DELETE', `/v2/a/blobs/${sha256(bytes)}`)).status, 202)
  assert.equal((await put(location, sha256(bytes))).status, 404)
})

test('of eight closing PUTs at once each is told that the blob is there', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const bytes = randomBytes(50_000)
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  assert.equal((await client.request('PATCH', location, { body: bytes })).status, 202)
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => client.request('PUT', `${location}?digest=${sha256(bytes)}`)),
  )
  assert.deepEqual(
    answers.map(({ status }) => status),
    Array.from({ length: 8 }, () => 201),
  )
})

test('a client that goes away is an information with status 499, never a warning or an error', async (t) => {
  const node = await testNode(t)
  const client = ociClient(node.url)
  const large = randomBytes(16 * 1024 * 1024)
  await client.pushBlob('a', large)
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location')
  node.logLines.length = 0
  const heads = [
    `PATCH ${location} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nfirst`,
    `PATCH ${location} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n`,
    `PUT ${location}?digest=${sha256('x')} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nfirst`,
    `POST /v2/a/blobs/uploads/?digest=${sha256('x')} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nfirst`,
    'PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n{',
    `GET /v2/a/blobs/${sha256(large)} HTTP/1.1\r\nHost: h\r\n\r\n`,
  ]
  for (const head of heads) {
    for (const reset of [true, false]) {
      const socket = connect(node.port, '127.0.0.1')
      socket.on('error', () => {})
      await new Promise((written) => socket.write(head, written))
      if (head.startsWith('GET')) await once(socket, 'data')
      else await new Promise((resolve) => setTimeout(resolve, 50))
      if (reset) socket.resetAndDestroy()
      else socket.destroy()
    }
  }
  const lines = () =>
    node.logLines.map((line) => JSON.parse(line) as { level: string; status?: number; code?: string })
  await eventually(
    'a line for each',
    () => lines().filter(({ status }) => status !== undefined).length === heads.length * 2,
  )
  assert.deepEqual(
    lines().filter(({ level }) => level !== 'info'),
    [],
  )
  const uploads = lines().filter(({ status }) => status !== 200)
  assert.equal(uploads.length, (heads.length - 1) * 2)
  for (const { status, code } of uploads)
    assert.ok(status === 499 ? code === undefined : status === 400, `${status} ${code}`)
  assert.ok(
    uploads.filter(({ status }) => status === 499).length >= heads.length - 1,
    'those that were reset',
  )
  assert.doesNotMatch(await node.region.metrics.text(), /portolan_errors_total\{code="UN(KNOWN|AVAILABLE)"\}/)
})
