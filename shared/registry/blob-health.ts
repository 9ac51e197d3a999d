// Whether the object behind a blob's row exists and has the right content. This is checked when a client asks for the
// blob, cached for a short time, and recorded in the row when the object is damaged.
//
// There are three checks, from cheap to expensive:
// - `isThere` compares the size (a system call or one request). It runs before HEAD answers 200 and before a mount.
//   Clients skip an upload because of these answers, so without the check a lost blob would never come back.
// - A whole read through `provingSink` compares the digest. It runs on each GET of a whole blob. For files, a proved
//   digest stays valid for ten minutes while the file is unchanged, because hashing costs more than sending.
// - `examine` decides. One wrong read may be the fault of the network or of memory, so the object is read again, and
//   only an object that is wrong twice is marked. A store that does not answer, or is not mounted, proves nothing.
//
// A marked blob answers 404 BLOB_UNKNOWN to GET and HEAD. 503 would be more accurate but would not help. docker,
// containerd and BuildKit send a layer again when HEAD answers 404, and treat a 404 of a cached layer as a miss. On 503
// they only retry. The 404 loses nothing, because the bytes are already gone. Operators see the damage in a log line
// and a metric.
//
// Not detected at once: a ranged read of a part is not hashed, and neither is a read that the object store serves by a
// link. The janitor's scrub checks those objects, and removes the mark when an object is sound again.
//
// Failures: nothing here fails a request. If the database cannot be written, the mark waits for the next read.

import { LRUCache } from 'lru-cache'
import { type BlobStore, type ByteSink, StoreError } from '#shared/blobs/blob-store.ts'
import type { BlobStores } from '#shared/blobs/open-store.ts'
import { provingSink, WrongContentError } from '#shared/blobs/proving-sink.ts'
import { blobPlace, type Damage, markBlobDamaged, unmarkBlob } from '#shared/db/blobs.ts'
import type { Queryable } from '#shared/db/statement.ts'
import { RegistryError, toError } from '#shared/errors.ts'
import type { Log } from '#shared/observability/log.ts'
import type { Metrics } from '#shared/observability/metrics.ts'
import { algorithmOf, type Digest, digestBytes } from '#shared/oci/digest.ts'

/** How long a check that found the object stays valid. HEAD requests come in bursts. */
const SEEN_MS = 5_000
/** How long a proved digest stays valid while the object's version is unchanged. */
const PROVED_MS = 10 * 60_000
/** Maximum number of objects remembered, some hundred bytes each. */
const REMEMBERED_MAX = 20_000
/** How long HEAD and mount wait for a store. After that they rely on the row. */
const LOOK_MS_MAX = 2_000
/**
 * Maximum number of objects that are read again at the same time to confirm damage. Others wait for their next reader.
 */
const READS_MAX = 2

/** What a row records about a blob. */
export interface RecordedBlob {
  readonly digest: Digest
  readonly store: string
  readonly key: string
  readonly size: number
}

export type Verdict = 'sound' | 'damaged' | 'unknown'

export interface BlobHealth extends AsyncDisposable {
  /**
   * Returns false if the object is missing or has another size; the blob is then marked. Returns true also if the store
   * does not answer, so use it only for answers that may rely on the row alone.
   */
  isThere(blob: RecordedBlob): Promise<boolean>
  /**
   * Checks the object, with `content` all of its bytes, and marks the blob if it is damaged. 'unknown': the store did
   * not answer, or too many objects are being read. Concurrent calls for one object share one check, with the signal of
   * the first call.
   */
  examine(blob: RecordedBlob, options: { content: boolean; signal?: AbortSignal }): Promise<Verdict>
  /** Reads a marked blob's object whole. If it is sound, removes the mark and returns true. */
  lookAgain(blob: RecordedBlob, signal: AbortSignal): Promise<boolean>
  /**
   * Sends the whole blob. Sends the last bytes only if all bytes have its digest.
   * @throws WrongContentError
   */
  sendProved(
    blob: RecordedBlob,
    place: { store: BlobStore; key: string; version: string | undefined },
    sink: ByteSink,
    signal: AbortSignal,
  ): Promise<void>
}

export function createBlobHealth(options: {
  db: Queryable
  stores: BlobStores
  log: Log
  metrics: Pick<Metrics, 'blobDamaged'>
}): BlobHealth {
  const { db, stores, log, metrics } = options
  const seen = new LRUCache<string, true>({ max: REMEMBERED_MAX, ttl: SEEN_MS })
  const proved = new LRUCache<string, string>({ max: REMEMBERED_MAX, ttl: PROVED_MS })
  const looks = new Map<string, Promise<Verdict>>()
  const stop = new AbortController()
  let reads = 0

  async function look(blob: RecordedBlob, content: boolean, signal: AbortSignal): Promise<Damage | 'sound'> {
    const store = await stores.named(blob.store)
    const found = await store.stat(blob.key)
    if (found === undefined) return 'missing'
    if (found.size !== blob.size) return 'size'
    return content && !(await hasItsDigest(blob, store, signal)) ? 'digest' : 'sound'
  }

  async function hasItsDigest(blob: RecordedBlob, store: BlobStore, signal: AbortSignal): Promise<boolean> {
    if (blob.size === 0) return digestBytes(algorithmOf(blob.digest), Buffer.alloc(0)) === blob.digest
    const range = { start: 0, end: blob.size - 1 }
    try {
      await store.send(blob.key, range, provingSink({ write: async () => {} }, blob), signal)
      return true
    } catch (thrown) {
      if (thrown instanceof WrongContentError) return false
      // A file that has its size but cannot be read to its end. A service that sends a different length than requested
      // proves nothing.
      if (store.statIsLocal && thrown instanceof StoreError && thrown.kind === 'corrupt') return false
      throw thrown
    }
  }

  /** Returns undefined if the state cannot be determined now. */
  async function lookBounded(
    blob: RecordedBlob,
    { content, signal }: { content: boolean; signal?: AbortSignal },
  ): Promise<Damage | 'sound' | undefined> {
    if (content && reads >= READS_MAX) return undefined
    const either = signal === undefined ? stop.signal : AbortSignal.any([stop.signal, signal])
    if (content) reads++
    try {
      return await look(blob, content, either)
    } catch (thrown) {
      if (thrown instanceof StoreError || either.aborted) return undefined
      throw thrown
    } finally {
      if (content) reads--
    }
  }

  async function judge(
    blob: RecordedBlob,
    options: { content: boolean; signal?: AbortSignal },
  ): Promise<Verdict> {
    const found = await lookBounded(blob, options)
    if (found === undefined) return 'unknown'
    if (found === 'sound') return found
    seen.delete(blob.key)
    proved.delete(blob.key)
    return mark(blob, found)
  }

  /**
   * Returns 'unknown' if the row names another object now: the key was removed because the blob was repaired or moved.
   */
  async function mark(blob: RecordedBlob, damage: Damage): Promise<Verdict> {
    const { digest, store, key, size } = blob
    const facts = { digest, store, key, size, damage }
    try {
      if (!(await markBlobDamaged(db, facts))) {
        const now = await blobPlace(db, digest)
        return now === undefined || (now.store === store && now.key === key) ? 'damaged' : 'unknown'
      }
    } catch (thrown) {
      log.warn({ ...facts, error: toError(thrown) }, 'a damaged blob could not be marked')
      return 'damaged'
    }
    metrics.blobDamaged(damage)
    log.error(facts, 'a blob is damaged: it answers as unknown until somebody pushes it again')
    return 'damaged'
  }

  function examine(
    blob: RecordedBlob,
    options: { content: boolean; signal?: AbortSignal },
  ): Promise<Verdict> {
    const id = `${options.content} ${blob.store} ${blob.key}`
    const underWay = looks.get(id)
    if (underWay !== undefined) return underWay
    const looking = judge(blob, options).finally(() => looks.delete(id))
    looks.set(id, looking)
    return looking
  }

  return {
    examine,

    async isThere(blob) {
      if (seen.has(blob.key)) return true
      const timeout = Promise.withResolvers<Verdict>()
      const timer = setTimeout(() => timeout.resolve('unknown'), LOOK_MS_MAX)
      try {
        const verdict = await Promise.race([examine(blob, { content: false }), timeout.promise])
        if (verdict === 'sound') seen.set(blob.key, true)
        return verdict !== 'damaged'
      } finally {
        clearTimeout(timer)
      }
    },

    async lookAgain(blob, signal) {
      if ((await lookBounded(blob, { content: true, signal })) !== 'sound') return false
      const { digest, store, key } = blob
      if (!(await unmarkBlob(db, { digest, store, key }))) return false
      log.info({ digest, store, key }, 'a blob that was marked is sound again')
      return true
    },

    async sendProved(blob, { store, key, version }, sink, signal) {
      const range = { start: 0, end: blob.size - 1 }
      if (version !== undefined && proved.get(key) === version) return store.send(key, range, sink, signal)
      await store.send(key, range, provingSink(sink, blob), signal)
      if (version !== undefined) proved.set(key, version)
    },

    async [Symbol.asyncDispose]() {
      stop.abort(new Error('the process stops'))
      await Promise.allSettled(looks.values())
    },
  }
}

/** The error that GET and HEAD of a marked blob return. */
export function blobDamaged(digest: Digest): RegistryError {
  return new RegistryError('BLOB_UNKNOWN', {
    message: 'the bytes of this blob are lost or damaged here: push it again',
    details: [{ digest }],
  })
}
