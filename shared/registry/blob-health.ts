// Whether the object behind a blob's row is there and is the blob: found out when somebody asks for it, remembered for
// a short time, and written down when it is not.
//
// Three looks, by price:
// - `isThere` compares the size (a system call or one request): before HEAD says 200 and before a mount. Clients skip
//   an upload on the strength of these answers, so a lost blob would never come back otherwise.
// - a whole read through `provingSink` compares the digest: each GET of a whole blob. For files a digest that was
//   proved counts for ten minutes while nobody has written to the file: hashing costs more than sending.
// - `examine` decides. One wrong read may be the wire's or the memory's fault, so the object is looked at again, and
//   only what is wrong twice is marked. A store that does not answer, or is not mounted, proves nothing.
//
// A marked blob answers 404 BLOB_UNKNOWN to GET and HEAD. 503 would be truer and would help nobody: docker, containerd
// and BuildKit send a layer again when HEAD says 404, treat 404 of a cached layer as a miss, and only repeat on 503.
// Clients cannot lose anything by the 404, because the bytes are gone; an operator hears of it by log and metric.
//
// What it cannot see at once: a ranged read of a part is not hashed, and neither is what the object store serves by a
// link. The janitor's scrub comes by those, and takes a mark back when the object is sound again.
//
// Failures: nothing here fails a request. Where the database cannot be written the mark waits for the next read.

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

/** An object that was seen is believed in for so long: HEADs come in bursts. */
const SEEN_MS = 5_000
/** A digest that was proved counts for so long, if the object's version is still the same. */
const PROVED_MS = 10 * 60_000
/** Objects remembered, some hundred bytes each. */
const REMEMBERED_MAX = 20_000
/** How long HEAD and mount wait for a store; then they believe the row. */
const LOOK_MS_MAX = 2_000
/** Objects read again at the same time to be sure that they are wrong; more wait for their next reader. */
const READS_MAX = 2

/** What a row says of a blob. */
export interface RecordedBlob {
  readonly digest: Digest
  readonly store: string
  readonly key: string
  readonly size: number
}

export type Verdict = 'sound' | 'damaged' | 'unknown'

export interface BlobHealth extends AsyncDisposable {
  /**
   * False when the object is missing or has another size; the blob is then marked. True also while the store does not
   * say: for answers that may rest on the row alone.
   */
  isThere(blob: RecordedBlob): Promise<boolean>
  /**
   * Looks at the object, with `content` at all of its bytes, and marks the blob when it is damaged. 'unknown': the
   * store did not say, or too many objects are being read. Calls for one object share one look, with the first one's
   * signal.
   */
  examine(blob: RecordedBlob, options: { content: boolean; signal?: AbortSignal }): Promise<Verdict>
  /** Reads a marked blob's object whole; true when it is sound after all, and the mark is taken back. */
  lookAgain(blob: RecordedBlob, signal: AbortSignal): Promise<boolean>
  /** Sends the whole blob; the last bytes only when all have its digest. @throws WrongContentError */
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
      // A file that has its size and cannot be read to its end. A service that sends another length than it was asked
      // for proves nothing.
      if (store.statIsLocal && thrown instanceof StoreError && thrown.kind === 'corrupt') return false
      throw thrown
    }
  }

  /** undefined: nobody can say now. */
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

  /** 'unknown' when the row names another object by now: its key was removed because the blob was repaired or moved. */
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

/** What GET and HEAD of a marked blob answer. */
export function blobDamaged(digest: Digest): RegistryError {
  return new RegistryError('BLOB_UNKNOWN', {
    message: 'the bytes of this blob are lost or damaged here: push it again',
    details: [{ digest }],
  })
}
