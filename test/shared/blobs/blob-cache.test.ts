import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBlobCache } from '#shared/blobs/blob-cache.ts'

test('requests for one key share one read, and the next finds it in memory', async () => {
  const cache = createBlobCache({ bytesMax: 10_000 })
  let loads = 0
  const load = async () => {
    loads++
    return Buffer.from('bytes')
  }
  const all = await Promise.all([cache.get('k', load), cache.get('k', load), cache.get('k', load)])
  assert.deepEqual(all.map(String), ['bytes', 'bytes', 'bytes'])
  assert.equal(String(await cache.get('k', load)), 'bytes')
  assert.equal(loads, 1)
})

test('a read that fails is not remembered', async () => {
  const cache = createBlobCache({ bytesMax: 10_000 })
  await assert.rejects(
    cache.get('k', () => Promise.reject(new Error('no'))),
    /no/,
  )
  assert.equal(String(await cache.get('k', async () => Buffer.from('yes'))), 'yes')
})

test('the bytes in memory are bounded', async () => {
  const cache = createBlobCache({ bytesMax: 10_000 })
  for (let index = 0; index < 100; index++) await cache.get(String(index), async () => Buffer.alloc(1_000))
  const kept = Array.from({ length: 100 }, (_, index) => cache.peek(String(index))).filter(
    (bytes) => bytes !== undefined,
  )
  assert.ok(kept.length > 0 && kept.length < 10)
})
