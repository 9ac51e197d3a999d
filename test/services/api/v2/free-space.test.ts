// A disk that fills up: uploads end with 503 before they cross the floor, pulls continue, and no restart is needed.
// Runs on real file systems of a few megabytes.
// tests: shared/blobs/files/volumes.ts

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, symlink } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import pg from 'pg'
import { eventually } from '../../../support/eventually.ts'
import { sha256, testImage } from '../../../support/image.ts'
import { ociClient } from '../../../support/oci-client.ts'
import { startPortolan } from '../../../support/portolan-process.ts'
import { rawHttp } from '../../../support/raw-http.ts'
import { testDirectory, testNode } from '../../../support/region.ts'
import { smallDisk } from '../../../support/small-disk.ts'

const MIB = 1024 * 1024
const FLOOR = 16 * MIB

/** The reply to a request with a streamed body, even if the body is still being sent. */
function streamed(
  url: string,
  method: string,
  body: Iterable<Buffer>,
): Promise<{ status: number; retryAfter: unknown }> {
  return new Promise((resolve, reject) => {
    const sending = request(url, { method }, (answer) => {
      answer.resume()
      resolve({ status: answer.statusCode ?? 0, retryAfter: answer.headers['retry-after'] })
    })
    sending.on('error', reject)
    Readable.from(body).pipe(sending)
  })
}

function* megabytes(count: number): Generator<Buffer> {
  for (let sent = 0; sent < count; sent++) yield Buffer.alloc(MIB, sent)
}

async function nodeOnDisk(t: Parameters<typeof smallDisk>[0]) {
  const disk = await smallDisk(t, 64 * MIB)
  if (disk === undefined) return undefined
  const node = await testNode(t, {
    env: { PORTOLAN_DATA_DIR: disk.directory, PORTOLAN_FREE_BYTES_MIN: String(FLOOR) },
  })
  const client = ociClient(node.url)
  const open = async () =>
    (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  return { disk, node, client, open }
}

test('an announced length that would cross the floor is 503 before a byte of it is read', async (t) => {
  const on = await nodeOnDisk(t)
  if (on === undefined) return
  const { disk, node, client, open } = on
  const before = await disk.free()
  const location = await open()
  const head = `PATCH ${location} HTTP/1.1\r\nHost: h\r\nContent-Length: ${60 * MIB}\r\nExpect: 100-continue\r\n\r\n`
  const { text } = await rawHttp(node.port, [head])
  assert.match(text, /^HTTP\/1\.1 503 /, 'and not 100 Continue')
  assert.match(text, /retry-after: \d+/i)
  assert.match(text, /"UNAVAILABLE"/)
  assert.equal(await disk.free(), before)
  const digest = sha256('x')
  assert.equal((await client.request('PUT', `${location}?digest=${digest}`, { body: 'x' })).status, 201)
})

test('an upload of unknown length that would cross the floor ends with 503, its bytes go at once, pulls go on', async (t) => {
  const on = await nodeOnDisk(t)
  if (on === undefined) return
  const { disk, node, client, open } = on
  await client.pushBlob('a', Buffer.from('kept'))
  const location = await open()
  const before = await disk.free()
  const least = await disk.leastFree(async () => {
    const answer = await streamed(`${node.url}${location}`, 'PATCH', megabytes(200))
    assert.equal(answer.status, 503)
    assert.ok(Number(answer.retryAfter) > 0)
  })
  assert.ok(least >= FLOOR, `the least that was free: ${least}`)
  assert.ok(before - (await disk.free()) < MIB, 'its bytes are gone')
  assert.equal((await client.get(`/v2/a/blobs/${sha256('kept')}`)).body.toString(), 'kept')
  assert.equal((await client.request('GET', location)).status, 204, 'the session is where it was')
})

test('fifty uploads at once are not each promised the same space', async (t) => {
  const on = await nodeOnDisk(t)
  if (on === undefined) return
  const { disk, node } = on
  const push = async (index: number): Promise<number> => {
    const bytes = Buffer.alloc(4 * MIB, index)
    const path = `/v2/a/blobs/uploads/?digest=${sha256(bytes)}`
    // Every second request does not announce its length.
    if (index % 2 === 1) return (await ociClient(node.url).request('POST', path, { body: bytes })).status
    return (await streamed(node.url + path, 'POST', [bytes.subarray(0, MIB), bytes.subarray(MIB)])).status
  }
  let statuses: number[] = []
  const least = await disk.leastFree(async () => {
    statuses = await Promise.all(Array.from({ length: 50 }, (_, index) => push(index)))
  })
  assert.deepEqual(new Set(statuses), new Set([201, 503]))
  assert.ok(least >= FLOOR, `the least that was free: ${least}`)
})

test('on a disk without a byte left pulls go on, pushes are 503, nothing ends, and space makes it well again', async (t) => {
  const disk = await smallDisk(t, 256 * MIB)
  if (disk === undefined) return
  await using portolan = await startPortolan({
    dataDir: disk.directory,
    env: { PORTOLAN_FREE_BYTES_MIN: String(FLOOR) },
  })
  const client = ociClient(portolan.url)
  const image = testImage()
  const layer = randomBytes(3 * MIB)
  await client.pushImage('a', image, 'v1')
  await client.pushBlob('a', layer)
  await disk.fill()
  assert.equal(await disk.free(), 0)
  // The embedded server writes its log: each of these is a line.
  const socket = join(disk.directory, 'eu', 'postgres', 'socket')
  for (let tries = 0; tries < 5; tries++) {
    const stranger = new pg.Client({
      host: socket,
      user: 'portolan',
      password: 'wrong',
      database: 'postgres',
    })
    stranger.on('error', () => {})
    await assert.rejects(stranger.connect(), /password authentication failed/)
  }
  const other = testImage()
  await eventually('uploads to be refused', async () => {
    return (await client.request('POST', '/v2/a/blobs/uploads/')).status === 503
  })
  const whole = await client.request('POST', `/v2/a/blobs/uploads/?digest=${sha256('x')}`, { body: 'x' })
  assert.equal(whole.status, 503)
  const put = await client.pushManifest('a', 'v2', image)
  assert.equal(put.status, 503)
  assert.ok(Number(put.headers.get('retry-after')) > 0)
  for (let round = 0; round < 20; round++) {
    assert.deepEqual((await client.get('/v2/a/manifests/v1')).body, image.bytes)
    assert.equal(sha256((await client.get(`/v2/a/blobs/${sha256(layer)}`)).body), sha256(layer))
  }
  assert.equal((await fetch(`${portolan.url}/readyz`)).status, 200, 'a balancer must leave the pulls here')
  await disk.empty()
  await eventually('pushes to go on', async () => {
    return (await client.request('POST', '/v2/a/blobs/uploads/')).status === 202
  })
  await client.pushImage('a', other, 'v2')
  assert.deepEqual((await client.get('/v2/a/manifests/v2')).body, other.bytes)
  assert.equal(await portolan.stop(), 0)
})

test('the volume of the embedded database counts also when the blobs have another one with space', async (t) => {
  const disk = await smallDisk(t, 256 * MIB)
  if (disk === undefined) return
  const dataDir = await testDirectory(t)
  await mkdir(join(disk.directory, 'postgres'))
  await mkdir(join(dataDir, 'eu'))
  await symlink(join(disk.directory, 'postgres'), join(dataDir, 'eu', 'postgres'))
  await using portolan = await startPortolan({ dataDir, env: { PORTOLAN_FREE_BYTES_MIN: String(FLOOR) } })
  const client = ociClient(portolan.url)
  const image = testImage()
  await client.pushImage('a', image, 'v1')
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  await disk.fill(FLOOR / 2)
  await eventually('manifests to be refused', async () => {
    return (await client.pushManifest('a', 'v2', image)).status === 503
  })
  assert.equal((await client.request('POST', '/v2/a/blobs/uploads/')).status, 503)
  assert.equal((await client.request('PATCH', location, { body: 'x' })).status, 503)
  const mount = `/v2/b/blobs/uploads/?mount=${sha256(image.blobs[0] ?? '')}&from=a`
  assert.equal((await client.request('POST', mount)).status, 503)
  assert.deepEqual((await client.get('/v2/a/manifests/v1')).body, image.bytes)
  assert.equal(
    (await client.request('DELETE', '/v2/a/manifests/v1')).status,
    202,
    'deletes free space in the end',
  )
  await disk.empty()
  await eventually('manifests to go on', async () => {
    return (await client.pushManifest('a', 'v2', image)).status === 201
  })
})
