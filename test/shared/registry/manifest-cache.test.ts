import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Digest } from '#shared/oci/digest.ts'
import { createManifestCache } from '#shared/registry/manifest-cache.ts'
import { sha256 } from '../../support/image.ts'

function counting(contents: readonly string[]) {
  const stored = new Map(contents.map((text) => [sha256(text) as string, Buffer.from(text)]))
  const asked: Digest[][] = []
  const db = {
    rows: async (_statement: unknown, values: { digests: Digest[] }) => {
      asked.push(values.digests)
      return values.digests.flatMap((digest) =>
        stored.has(digest) ? [{ digest, bytes: stored.get(digest), single_image: '' }] : [],
      )
    },
  }
  return { asked, cache: createManifestCache({ db: db as never, bytesMax: 10_000 }) }
}

test('misses of one turn share a statement, one digest a read, and hits none', async () => {
  const { asked, cache } = counting(['a', 'b'])
  const digests = [sha256('a'), sha256('b'), sha256('a'), sha256('nowhere')]
  const bytes = await Promise.all(digests.map((digest) => cache.get(digest)))
  assert.deepEqual(
    bytes.map((one) => one?.bytes.toString()),
    ['a', 'b', 'a', undefined],
  )
  assert.deepEqual(asked, [[sha256('a'), sha256('b'), sha256('nowhere')]])
  assert.equal(String((await cache.get(sha256('a')))?.bytes), 'a')
  assert.equal(asked.length, 1)
  assert.equal(String(cache.peek(sha256('b'))?.bytes), 'b')
})

test('who asks while a manifest is being read waits for that read and causes none', async () => {
  const reads: ((rows: unknown[]) => void)[] = []
  const db = { rows: () => new Promise((resolve) => reads.push(resolve)) }
  const cache = createManifestCache({ db: db as never, bytesMax: 10_000 })
  const asked = [cache.get(sha256('a'))]
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(reads.length, 1)
  asked.push(cache.get(sha256('a')))
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(reads.length, 1)
  reads[0]?.([{ digest: sha256('a'), bytes: Buffer.from('a'), single_image: '' }])
  for (const one of await Promise.all(asked)) assert.equal(String(one?.bytes), 'a')
})

test('what was just pushed is there without reading', async () => {
  const { asked, cache } = counting([])
  cache.keep(sha256('new'), { bytes: Buffer.from('new'), facts: undefined })
  assert.equal(String((await cache.get(sha256('new')))?.bytes), 'new')
  assert.equal(asked.length, 0)
})

test('a failed read fails those who asked and nobody after them', async () => {
  let fail = true
  const db = {
    rows: async () => {
      if (fail) throw new Error('away')
      return [{ digest: sha256('a'), bytes: Buffer.from('a'), single_image: null }]
    },
  }
  const cache = createManifestCache({ db: db as never, bytesMax: 10_000 })
  await assert.rejects(Promise.all([cache.get(sha256('a')), cache.get(sha256('a'))]), /away/)
  fail = false
  assert.equal(String((await cache.get(sha256('a')))?.bytes), 'a')
})

test('many misses are read a bounded number at a time', async () => {
  const contents = Array.from({ length: 100 }, (_, index) => `m${index}`)
  const { asked, cache } = counting(contents)
  await Promise.all(contents.map((text) => cache.get(sha256(text))))
  assert.ok(asked.every(({ length }) => length <= 16))
})
