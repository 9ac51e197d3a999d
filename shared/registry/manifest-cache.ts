// Manifests by digest, in memory up to a number of bytes: the bytes, and the facts found in them when they were pushed.
// Neither ever changes, so nothing is invalidated. Whether a repository holds a digest is checked elsewhere, on each
// request. Misses in one turn of the event loop share a statement, and concurrent requests for one digest share its
// read.

import { LRUCache } from 'lru-cache'
import { type StoredManifest, storedManifests } from '#shared/db/manifests.ts'
import type { Queryable } from '#shared/db/statement.ts'
import type { Digest } from '#shared/oci/digest.ts'

/** Maximum number of manifests in one statement. At 4 MiB each, this bounds the size of one result. */
const BATCH_MAX = 16

export interface ManifestCache {
  /** Returns the manifest, or undefined if the digest is not stored. */
  get(digest: Digest): Promise<StoredManifest | undefined>
  /** Returns the manifest if it is in memory: no promise, no read. */
  peek(digest: Digest): StoredManifest | undefined
  /** Keeps a manifest that was just pushed, because the next pull is likely to need it. */
  keep(digest: Digest, manifest: StoredManifest): void
}

interface Waiting {
  readonly promise: Promise<StoredManifest | undefined>
  resolve(manifest: StoredManifest | undefined): void
  reject(error: unknown): void
}

export function createManifestCache(options: { db: Queryable; bytesMax: number }): ManifestCache {
  const cache = new LRUCache<Digest, StoredManifest>({
    maxSize: options.bytesMax,
    // An entry costs more than its bytes: the key, the list, the map, the facts.
    sizeCalculation: ({ bytes }) => bytes.length + 512,
  })
  /** Digests that are being read. Later requests for one of them wait for the same read. */
  const loading = new Map<Digest, Waiting>()
  /** The subset of them that the next turn of the event loop reads. */
  let batch: Digest[] = []

  async function load(digests: readonly Digest[]): Promise<void> {
    try {
      const found = await storedManifests(options.db, digests)
      for (const digest of digests) {
        const manifest = found.get(digest)
        // A manifest that was pushed meanwhile has the same bytes and already has its facts.
        if (manifest !== undefined && !cache.has(digest)) cache.set(digest, manifest)
        settle(digest)?.resolve(manifest)
      }
    } catch (thrown) {
      for (const digest of digests) settle(digest)?.reject(thrown)
    }
  }

  function settle(digest: Digest): Waiting | undefined {
    const one = loading.get(digest)
    loading.delete(digest)
    return one
  }

  function flush(): void {
    const all = batch
    batch = []
    for (let from = 0; from < all.length; from += BATCH_MAX) {
      // load settles every promise itself and never rejects.
      void load(all.slice(from, from + BATCH_MAX))
    }
  }

  return {
    peek: (digest) => cache.get(digest),
    keep: (digest, manifest) => {
      cache.set(digest, manifest)
    },
    get(digest) {
      const cached = cache.get(digest)
      if (cached !== undefined) return Promise.resolve(cached)
      const known = loading.get(digest)
      if (known !== undefined) return known.promise
      if (batch.length === 0) setImmediate(flush)
      batch.push(digest)
      const { promise, resolve, reject } = Promise.withResolvers<StoredManifest | undefined>()
      loading.set(digest, { promise, resolve, reject })
      return promise
    },
  }
}
