// Manifest bytes by digest, in memory up to a number of bytes. They never change, so nothing is ever invalidated;
// whether a repository holds a digest is asked elsewhere, each time. Misses of one turn of the event loop share a
// statement, and two requests for one digest share a read.

import { LRUCache } from 'lru-cache'
import { manifestBytes } from '#shared/db/manifests.ts'
import type { Queryable } from '#shared/db/statement.ts'
import type { Digest } from '#shared/oci/digest.ts'

/** Manifests read in one statement: at 4 MiB each this bounds what one answer may hold. */
const BATCH_MAX = 16

export interface ManifestCache {
  /** The bytes; undefined when the digest is not stored. */
  get(digest: Digest): Promise<Buffer | undefined>
  /** The bytes if they are in memory: no promise, no read. */
  peek(digest: Digest): Buffer | undefined
  /** Keeps bytes that were just pushed: the next pull will want them. */
  keep(digest: Digest, bytes: Buffer): void
}

interface Waiting {
  readonly promise: Promise<Buffer | undefined>
  resolve(bytes: Buffer | undefined): void
  reject(error: unknown): void
}

export function createManifestCache(options: { db: Queryable; bytesMax: number }): ManifestCache {
  const cache = new LRUCache<Digest, Buffer>({
    maxSize: options.bytesMax,
    // An entry costs more than its bytes: the key, the list, the map.
    sizeCalculation: (bytes) => bytes.length + 256,
  })
  let waiting = new Map<Digest, Waiting>()

  async function load(batch: Map<Digest, Waiting>): Promise<void> {
    try {
      const found = await manifestBytes(options.db, [...batch.keys()])
      for (const [digest, bytes] of found) cache.set(digest, bytes)
      for (const [digest, one] of batch) one.resolve(found.get(digest))
    } catch (thrown) {
      for (const one of batch.values()) one.reject(thrown)
    }
  }

  function flush(): void {
    const all = [...waiting]
    waiting = new Map()
    for (let from = 0; from < all.length; from += BATCH_MAX) {
      // load settles every promise itself and never rejects.
      void load(new Map(all.slice(from, from + BATCH_MAX)))
    }
  }

  return {
    peek: (digest) => cache.get(digest),
    keep: (digest, bytes) => {
      cache.set(digest, bytes)
    },
    get(digest) {
      const cached = cache.get(digest)
      if (cached !== undefined) return Promise.resolve(cached)
      const known = waiting.get(digest)
      if (known !== undefined) return known.promise
      if (waiting.size === 0) setImmediate(flush)
      const { promise, resolve, reject } = Promise.withResolvers<Buffer | undefined>()
      waiting.set(digest, { promise, resolve, reject })
      return promise
    },
  }
}
