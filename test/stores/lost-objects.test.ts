// On a real S3 server: a missing, short or corrupt object of a row is detected, and the next upload repairs it. An
// upload whose bytes are gone must begin again. No upload leaves objects other than its blob.
// tests: shared/blobs/lost-session.ts

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { StoreError } from '#shared/blobs/blob-store.ts'
import type { ObjectService } from '#shared/blobs/objects/object-service.ts'
import { createPartBuffers } from '#shared/blobs/objects/part-buffers.ts'
import { createPartStore } from '#shared/blobs/objects/part-store.ts'
import { openS3Service } from '#shared/blobs/objects/s3-service.ts'
import { blobPlace } from '#shared/db/blobs.ts'
import { uploadPartsPage } from '#shared/db/uploads.ts'
import { HARMS, type Harm, UPLOADS } from '../support/blob-harm.ts'
import { eventually } from '../support/eventually.ts'
import { sha256 } from '../support/image.ts'
import { type OciClient, ociClient } from '../support/oci-client.ts'
import { type ObjectStoreServer, startObjectStore, withoutStore } from '../support/parts/object-stores.ts'
import { storeNode, type TestNode } from '../support/region.ts'

const MIB = 1024 * 1024
const SIZES = { small: 10_000, 'of several parts': 11 * MIB }
const { signal } = new AbortController()

describe('S3 that loses objects', { skip: withoutStore('minio') }, () => {
  let server: ObjectStoreServer
  let service: ObjectService
  let node: TestNode
  let client: OciClient
  const cleanups: (() => unknown)[] = []
  before(async () => {
    server = await startObjectStore('minio')
    const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...env } = server.env
    Object.assign(process.env, { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY })
    node = await storeNode(
      { after: (cleanup: unknown) => void cleanups.push(cleanup as () => unknown) },
      { env },
    )
    const config = node.region.config.blobs
    assert.ok(config.kind === 's3')
    service = await openS3Service(config)
    client = ociClient(node.url)
  })
  after(async () => {
    for (const cleanup of cleanups) await cleanup()
    await service[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
  })

  async function keyOf(bytes: Buffer): Promise<string> {
    const place = await blobPlace(node.region.db, sha256(bytes))
    assert.ok(place)
    return place.key
  }

  async function harmObject(bytes: Buffer, harm: Harm): Promise<void> {
    const key = await keyOf(bytes)
    const other = Buffer.from(bytes.subarray(0, harm === 'short' ? -1 : undefined))
    const middle = other.length >> 1
    other.writeUInt8(other.readUInt8(middle) ^ 1, middle)
    if (harm === 'missing') await service.remove([key], signal)
    else await service.put(key, other, signal)
  }

  const objects = async () => (await node.region.blobs.list('', 1_000)).map(({ key }) => key)

  /** Returns the status of a GET, or 'cut' if the connection broke before the body was complete. */
  async function pull(repository: string, bytes: Buffer): Promise<number | 'cut'> {
    try {
      const { status, body } = await client.get(`/v2/${repository}/blobs/${sha256(bytes)}`)
      if (status === 200) assert.equal(sha256(body), sha256(bytes))
      return status
    } catch (thrown) {
      assert.ok(thrown instanceof TypeError, String(thrown))
      return 'cut'
    }
  }

  const head = async (repository: string, bytes: Buffer) =>
    (await client.request('HEAD', `/v2/${repository}/blobs/${sha256(bytes)}`)).status

  for (const [name, size] of Object.entries(SIZES)) {
    for (const harm of HARMS) {
      for (const [way, upload] of Object.entries(UPLOADS)) {
        test(`a blob ${name} that is ${harm} is detected and repaired by ${way}; nothing else is left`, async () => {
          const others = new Set(await objects())
          const bytes = randomBytes(size)
          await client.pushBlob('a', bytes)
          const dead = await keyOf(bytes)
          await harmObject(bytes, harm)
          if (harm === 'flipped') {
            const first = await pull('a', bytes)
            assert.ok(first === 404 || first === 'cut', String(first))
          }
          await eventually('the blob to be marked', async () => (await head('a', bytes)) === 404)
          assert.equal(await pull('a', bytes), 404)
          const pushed = await upload(client, 'b', bytes)
          assert.equal(pushed.status, 201, await pushed.text())
          for (const repository of ['a', 'b']) assert.equal(await pull(repository, bytes), 200)
          const key = await keyOf(bytes)
          assert.notEqual(key, dead)
          assert.deepEqual(
            (await objects()).filter((object) => !others.has(object)),
            [key],
          )
        })
      }
    }
  }

  for (const [way, upload] of Object.entries(UPLOADS).slice(0, 5)) {
    for (const [name, size] of Object.entries(SIZES)) {
      test(`${way} of a blob ${name} leaves no other object, the first time and the second`, async () => {
        const others = new Set(await objects())
        const bytes = randomBytes(size)
        for (const repository of ['a', 'b']) {
          assert.equal((await upload(client, repository, bytes)).status, 201)
          assert.deepEqual(
            (await objects()).filter((object) => !others.has(object)),
            [await keyOf(bytes)],
          )
        }
        assert.equal(await pull('b', bytes), 200)
      })
    }
  }

  for (const first of [1_000, 6 * MIB]) {
    for (const last of [0, 1_000, 6 * MIB]) {
      test(`if an attempt of ${first} bytes is gone, a PUT of ${last} returns 404`, async () => {
        const others = new Set(await objects())
        const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
        const bytes = randomBytes(first + last)
        const patched = await client.request('PATCH', location, { body: bytes.subarray(0, first) })
        assert.equal(patched.status, 202)
        const { db, blobs } = node.region
        const page = { store: 's3', after: '00000000-0000-0000-0000-000000000000', limit: 10 }
        const [row] = (await uploadPartsPage(db, page)).filter(({ id }) => location.includes(id))
        assert.ok(row)
        await blobs.abandon({ size: first, digest: null, parts: row.parts })
        const path = `${location}?digest=${sha256(bytes)}`
        const ended = await client.request('PUT', path, { body: bytes.subarray(first) })
        assert.equal(ended.status, 404)
        assert.match(await ended.text(), /BLOB_UPLOAD_UNKNOWN/)
        assert.equal(await pull('a', bytes), 404)
        assert.equal((await client.request('GET', location)).status, 404)
        assert.deepEqual(
          (await objects()).filter((object) => !others.has(object)),
          [],
        )
      })
    }
  }

  test('a missing bucket is not reported as a missing object, although HEAD returns the same', async () => {
    const config = node.region.config.blobs
    assert.ok(config.kind === 's3')
    const elsewhere = await openS3Service({ ...config, bucket: 'no-such-bucket' })
    const key = 'f'.repeat(32)
    assert.equal(await elsewhere.size(key, signal), undefined)
    await using store = createPartStore({
      service: elsewhere,
      buffers: createPartBuffers({ bytesMax: 2 ** 24 }),
    })
    await assert.rejects(store.stat(key), (error) => error instanceof StoreError && error.kind === 'denied')
    assert.equal(await node.region.blobs.stat(key), undefined)
  })
})
