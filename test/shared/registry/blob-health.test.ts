import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, rm } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import { type BlobStore, EMPTY_SESSION, StoreError } from '#shared/blobs/blob-store.ts'
import { markBlobDamaged } from '#shared/db/blobs.ts'
import type { RecordedBlob } from '#shared/registry/blob-health.ts'
import { append, collector } from '../../contract/blob-store.ts'
import { fileOf, harmFile } from '../../support/blob-harm.ts'
import { eventually } from '../../support/eventually.ts'
import { sha256 } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { repositoryName } from '../../support/push.ts'
import { storeNode, type TestNode } from '../../support/region.ts'

const signal = new AbortController().signal

async function pushed(t: TestContext, size = 3_000_000) {
  const node = await storeNode(t)
  const bytes = randomBytes(size)
  await ociClient(node.url).pushBlob('a', bytes)
  return { node, bytes, blob: await recorded(node, bytes), path: await fileOf(node, bytes) }
}

async function recorded(node: TestNode, bytes: Buffer): Promise<RecordedBlob> {
  const found = await node.region.lookups.read({
    repository: repositoryName('a'),
    kind: 'blob',
    reference: sha256(bytes),
  })
  assert.ok(found?.kind === 'blob')
  return found
}

/** The store of the node with some methods replaced until the test ends. */
function replaceMethods(t: TestContext, { region }: TestNode, methods: Partial<BlobStore>): void {
  const before = Object.fromEntries(
    Object.keys(methods).map((name) => [name, region.blobs[name as keyof BlobStore]]),
  )
  Object.assign(region.blobs, methods)
  t.after(() => void Object.assign(region.blobs, before))
}

test('bytes that are wrong once and right at the second look mark nothing', async (t) => {
  const { node, bytes, blob } = await pushed(t)
  const { send } = node.region.blobs
  let sends = 0
  replaceMethods(t, node, {
    send: (key, range, sink, abort) => {
      if (sends++ > 0) return send(key, range, sink, abort)
      return send(key, range, { write: (chunk) => sink.write(Buffer.from(chunk).fill(0, 0, 9)) }, abort)
    },
  })
  await assert.rejects(ociClient(node.url).get(`/v2/a/blobs/${blob.digest}`), /terminated|aborted|closed/)
  await eventually('the second look', () => sends === 2)
  assert.equal(await node.region.blobHealth.examine(blob, { content: true }), 'sound')
  assert.ok((await ociClient(node.url).get(`/v2/a/blobs/${blob.digest}`)).body.equals(bytes))
})

test('a store that does not answer proves nothing, and HEAD waits for it for a bounded time', async (t) => {
  const { node, blob } = await pushed(t)
  replaceMethods(t, node, { stat: () => Promise.reject(new StoreError('unavailable', 'away')) })
  assert.equal(await node.region.blobHealth.examine(blob, { content: false }), 'unknown')
  assert.equal(await node.region.blobHealth.isThere(blob), true)
  const never = Promise.withResolvers<undefined>()
  replaceMethods(t, node, { stat: () => never.promise })
  assert.equal(await node.region.blobHealth.isThere(blob), true)
  never.resolve(undefined)
})

test('a file that has its size and cannot be read is damaged', async (t) => {
  const { node, blob } = await pushed(t)
  const cause = Object.assign(new Error('i/o'), { code: 'EIO' })
  replaceMethods(t, node, { send: () => Promise.reject(new StoreError('corrupt', 'EIO', { cause })) })
  assert.equal((await ociClient(node.url).get(`/v2/a/blobs/${blob.digest}`)).status, 404)
  assert.equal((await ociClient(node.url).request('HEAD', `/v2/a/blobs/${blob.digest}`)).status, 404)
})

test('something else under the name of a file is no object', async (t) => {
  const { node, blob, path } = await pushed(t)
  await rm(path)
  await mkdir(path)
  assert.equal(await node.region.blobHealth.examine(blob, { content: false }), 'damaged')
})

test('a mark for an object that the row no longer names changes nothing', async (t) => {
  const { node, bytes, blob } = await pushed(t)
  const other = { digest: blob.digest, store: blob.store, key: 'f'.repeat(32) }
  assert.equal(await markBlobDamaged(node.region.db, { ...other, damage: 'missing' }), false)
  assert.ok((await ociClient(node.url).get(`/v2/a/blobs/${blob.digest}`)).body.equals(bytes))
})

test('a reader that looked just before the repair is not told that the blob is lost', async (t) => {
  const { node, bytes, blob, path } = await pushed(t)
  await harmFile(path, 'missing')
  await ociClient(node.url).pushBlob('a', bytes)
  assert.notEqual((await recorded(node, bytes)).key, blob.key)
  assert.equal(await node.region.blobHealth.examine(blob, { content: false }), 'unknown')
  assert.equal(await node.region.blobHealth.isThere(blob), true)
})

test('many readers of one damaged object share one look at it', async (t) => {
  const { node, blob, path } = await pushed(t)
  await harmFile(path, 'flipped')
  let reads = 0
  const { send } = node.region.blobs
  replaceMethods(t, node, {
    send: (...parameters) => {
      reads++
      return send(...parameters)
    },
  })
  const verdicts = await Promise.all(
    Array.from({ length: 20 }, () => node.region.blobHealth.examine(blob, { content: true })),
  )
  assert.deepEqual(new Set(verdicts), new Set(['damaged']))
  assert.equal(reads, 1)
  assert.equal(node.logLines.filter((line) => line.includes('is damaged')).length, 1)
})

test('a digest that was proved is not computed again until somebody writes to the file', async (t) => {
  const { node, bytes, blob, path } = await pushed(t)
  const { blobs, blobHealth } = node.region
  const sendNow = async () => {
    const version = (await blobs.stat(blob.key))?.version
    const sink = collector()
    await blobHealth.sendProved(blob, { store: blobs, key: blob.key, version }, sink, signal)
    return sink.bytes()
  }
  assert.ok((await sendNow()).equals(bytes))
  assert.ok((await sendNow()).equals(bytes))
  await harmFile(path, 'flipped')
  await assert.rejects(sendNow(), /not what was pushed/)
})

test('an empty blob is examined too', async (t) => {
  const { node } = await pushed(t)
  const { object } = await node.region.blobs.complete(
    await append(node.region.blobs, EMPTY_SESSION, Buffer.alloc(0)),
    { algorithm: 'sha256' },
  )
  const blob = { ...object, store: 'file' }
  assert.equal(await node.region.blobHealth.examine(blob, { content: true }), 'sound')
})
