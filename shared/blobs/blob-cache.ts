// Caches small blobs in memory, up to a total number of bytes. Configs are fetched on every pull, and most are a few
// KB. The cache is keyed by storage key, which is never reused, so nothing is ever invalidated. Requests for one key
// share one read.

import { LRUCache } from 'lru-cache'

/** Larger blobs are streamed, because each would evict many small ones. */
const ENTRY_BYTES_MAX = 256 * 1024

export interface BlobCache {
  readonly entryBytesMax: number
  /** Returns the bytes from memory or from `load`. A failed load is not cached. */
  get(key: string, load: () => Promise<Buffer>): Promise<Buffer>
  peek(key: string): Buffer | undefined
}

export function createBlobCache(options: { bytesMax: number }): BlobCache {
  const cache = new LRUCache<string, Buffer>({
    maxSize: options.bytesMax,
    sizeCalculation: (bytes) => bytes.length + 256,
  })
  const loading = new Map<string, Promise<Buffer>>()

  async function load(key: string, read: () => Promise<Buffer>): Promise<Buffer> {
    try {
      const bytes = await read()
      cache.set(key, bytes)
      return bytes
    } finally {
      loading.delete(key)
    }
  }

  return {
    entryBytesMax: ENTRY_BYTES_MAX,
    peek: (key) => cache.get(key),
    get(key, read) {
      const known = cache.get(key)
      if (known !== undefined) return Promise.resolve(known)
      const underWay = loading.get(key)
      if (underWay !== undefined) return underWay
      const promise = load(key, read)
      loading.set(key, promise)
      return promise
    },
  }
}
