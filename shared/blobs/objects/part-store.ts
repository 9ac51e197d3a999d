// BlobStore on an object service (S3, Google Cloud Storage, Azure Blob): opaque keys, written once, never copied.
//
// An upload goes directly to its final object. One request that names the parts ends it, and the row that maps a digest
// to the key is the commit. The state of a session is in its row, so any node can continue it. Bytes of a session of
// one attempt are never read again. A session of several attempts is hashed by reading the object once when the upload
// ends.
//
// retry.ts bounds and retries every call. A call that may have succeeded although its response was lost is safe to
// repeat: keys are new for each object, parts are identified by number, and if an upload is gone when it is finished,
// the object is looked up under its key.

import { createDigester, type Digest, digestBytes } from '#shared/oci/digest.ts'
import {
  type Attempt,
  type AttemptOptions,
  type BlobStore,
  type ByteSink,
  type Completion,
  type ListedObject,
  MARKER_BYTES_MAX,
  MARKER_NAME,
  type StoredSession,
  StoreError,
} from '../blob-store.ts'
import { orLost } from '../lost-session.ts'
import { createWaitingLine } from '../waiting-line.ts'
import { readWhole, streamTo } from './object-read.ts'
import type { ObjectService, PartUpload } from './object-service.ts'
import { type Asking, newKey, PartAttempt } from './part-attempt.ts'
import type { PartBuffers } from './part-buffers.ts'
import { notesOf, type PartNotes, restKey, sessionKeys } from './part-session.ts'
import { RETRY_LIMITS, type RetryLimits, retrying } from './retry.ts'

const KEY = /^[0-9a-f]{32}$/
/** Maximum number of bodies that are being opened at the same time. */
const OPENING_MAX = 128
/** A probe object every second would cost money, so readiness, which is checked often, uses a cached result. */
const CHECK_TTL_MS = 15_000
/** The start time of a link is rounded down to this, so that all requests within the interval get the same link. */
const LINK_BUCKET_MS = 5 * 60_000
const LINK_SECONDS = 20 * 60
/** Sorts after every key. Names from here on are not ours. */
const AFTER_ALL_KEYS = 'g'
/**
 * Maximum number of pages in a row without our objects, because listing foreign objects beside the blobs costs
 * requests.
 */
const FOREIGN_PAGES_MAX = 100

export interface PartStoreOptions {
  service: ObjectService
  buffers: PartBuffers
  limits?: Partial<RetryLimits>
  /** A body from the store is given up if no byte arrives for this long. */
  stallMs?: number
  nowMs?: () => number
}

export function createPartStore(options: PartStoreOptions): BlobStore {
  const { service, buffers } = options
  const limits = { ...RETRY_LIMITS, ...options.limits }
  const stallMs = options.stallMs ?? 30_000
  const nowMs = options.nowMs ?? Date.now
  const failureOf = (thrown: unknown) => service.failureOf(thrown)
  const line = createWaitingLine<undefined, true>()
  let opening = 0
  let checked: { atMs: number; outcome: Promise<void> } | undefined

  const asking: Asking = {
    ask: (work, signal) => retrying(work, { failureOf, limits, signal }),
    async tidy(work) {
      try {
        await retrying(work, { failureOf, limits: { ...limits, triesMax: 1 } })
      } catch (thrown) {
        if (!(thrown instanceof StoreError)) throw thrown
      }
    },
  }
  const { ask } = asking

  /**
   * Opens at most as many bodies at once as there are connections. A waiting call costs a queue entry, not a request.
   */
  async function inTurn<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (opening < OPENING_MAX) opening++
    else {
      const timeout = AbortSignal.timeout(limits.totalMs)
      try {
        await line.wait(undefined, signal === undefined ? timeout : AbortSignal.any([signal, timeout]))
      } catch (thrown) {
        signal?.throwIfAborted()
        throw new StoreError('unavailable', 'too many requests wait for the store', { cause: thrown })
      }
    }
    try {
      return await work()
    } finally {
      // The place passes directly to the next in line, so that no call can jump the queue.
      let handed = false
      line.serve(() => {
        if (handed) return undefined
        handed = true
        return true
      })
      if (!handed) opening--
    }
  }

  async function send(
    key: string,
    range: { start: number; end: number },
    sink: ByteSink,
    signal: AbortSignal,
  ): Promise<void> {
    requireKey(key)
    const open = (part: { start: number; end: number }) =>
      inTurn(() => ask((limit) => openBody(key, part, limit), signal), signal)
    await streamTo(sink, { range, stallMs, signal, open })
  }

  /**
   * The connection outlives the call that opened it. The time limit of the call applies only until the connection is
   * open.
   */
  async function openBody(key: string, range: { start: number; end: number }, limit: AbortSignal) {
    const connection = new AbortController()
    const end = () => connection.abort(limit.reason)
    limit.addEventListener('abort', end, { once: true })
    try {
      return await service.get(key, range, connection.signal)
    } finally {
      limit.removeEventListener('abort', end)
    }
  }

  async function url(key: string): Promise<string | undefined> {
    requireKey(key)
    const bucketMs = Math.floor(nowMs() / LINK_BUCKET_MS) * LINK_BUCKET_MS
    return service.presign(key, { nowMs: bucketMs, seconds: LINK_SECONDS + LINK_BUCKET_MS / 1_000 })
  }

  async function complete(session: StoredSession, completed: AttemptOptions): Promise<Completion> {
    const notes = notesOf(session)
    const { algorithm, signal } = completed
    if (notes.upload === undefined && notes.rest === undefined) {
      const key = newKey()
      await ask((limit) => service.put(key, Buffer.alloc(0), limit), signal)
      return {
        object: { key, size: 0, digest: digestBytes(algorithm, Buffer.alloc(0)) },
        surplus: [],
        fresh: true,
      }
    }
    const key = notes.upload?.key ?? requireRestKey(notes)
    if (notes.upload !== undefined) await finishUpload(notes.upload, notes, session.size, signal)
    const surplus = sessionKeys([notes]).filter((other) => other !== key)
    const known = session.digest?.startsWith(`${algorithm}:`) ? session.digest : null
    const digest = known ?? (await orLost(hash(key, session.size, completed)))
    return { object: { key, size: session.size, digest }, surplus, fresh: false }
  }

  async function finishUpload(
    upload: PartUpload,
    notes: PartNotes,
    size: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const rest =
      notes.rest !== undefined && 'base64' in notes.rest
        ? Buffer.from(notes.rest.base64, 'base64')
        : Buffer.alloc(0)
    const tags = notes.parts.map(({ tag }) => tag)
    try {
      await ask(
        (limit) => service.finishUpload(upload, { tags, offset: size - rest.length, rest }, limit),
        signal,
      )
    } catch (thrown) {
      if (!(thrown instanceof StoreError) || thrown.kind !== 'lost') throw thrown
      // The upload may have been finished already: by this call, whose response was lost, or by a node that crashed
      // afterwards.
      const there = await ask((limit) => service.size(upload.key, limit), signal)
      if (there !== size) throw thrown
    }
  }

  async function hash(key: string, size: number, completed: AttemptOptions): Promise<Digest> {
    const digester = createDigester(completed.algorithm)
    const sink: ByteSink = { write: async (chunk) => digester.update(chunk) }
    await send(key, { start: 0, end: size - 1 }, sink, completed.signal ?? NEVER_ABORTED)
    return digester.digest()
  }

  /** The failure names the step. A bucket with permission to write but not to delete is a common mistake. */
  async function probe(): Promise<void> {
    const key = newKey()
    const bytes = Buffer.from('probe')
    const step = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
      try {
        return await work()
      } catch (thrown) {
        if (!(thrown instanceof StoreError)) throw thrown
        throw new StoreError(thrown.kind, `cannot ${name} ${service.place}: ${thrown.message}.`, {
          cause: thrown,
        })
      }
    }
    await step('write to', () => ask((signal) => service.put(key, bytes, signal)))
    await step('read from', async () => {
      const chunks: Buffer[] = []
      const sink: ByteSink = { write: async (chunk) => void chunks.push(Buffer.from(chunk)) }
      await send(key, { start: 1, end: 3 }, sink, NEVER_ABORTED)
      if (!Buffer.concat(chunks).equals(bytes.subarray(1, 4)))
        throw new StoreError('corrupt', 'it answers ranges wrongly')
    })
    await step('delete from', () => ask((signal) => service.remove([key], signal)))
  }

  /** Returns only keys, whatever else is under the prefix. If a page holds no key, the next page is read. */
  async function list(after: string, limit: number): Promise<readonly ListedObject[]> {
    let from = after
    for (let pages = 1; pages <= FOREIGN_PAGES_MAX; pages++) {
      const page = await ask((signal) => service.list(from, limit, signal))
      const ours = page.filter(({ key }) => KEY.test(key))
      const last = page.at(-1)
      if (ours.length > 0 || last === undefined || last.key >= AFTER_ALL_KEYS) return ours
      from = last.key
    }
    throw new StoreError(
      'denied',
      `${service.place} holds too many objects that are not blobs: give the blobs a prefix of their own`,
    )
  }

  async function readMarker(): Promise<string | undefined> {
    try {
      return await ask(async (signal) => {
        const { bytes, body } = await service.get(MARKER_NAME, undefined, signal)
        const chunks: Buffer[] = []
        let left = MARKER_BYTES_MAX
        for await (const chunk of body as AsyncIterable<Buffer>) {
          chunks.push(chunk)
          left -= chunk.length
          if (left < 0) throw new StoreError('corrupt', 'the marker is too long')
        }
        if (bytes !== MARKER_BYTES_MAX - left) throw new StoreError('unavailable', 'the marker was cut short')
        return Buffer.concat(chunks).toString()
      })
    } catch (thrown) {
      if (thrown instanceof StoreError && thrown.kind === 'missing') return undefined
      throw thrown
    }
  }

  /** The time that the store assigns to an object written now. All its object ages are based on this clock. */
  async function storeNowMs(): Promise<number> {
    const base = newKey().slice(0, -1)
    // The listing starts after a key that ends in 0, so the key that ends in 1 comes first.
    const key = `${base}1`
    await ask((signal) => service.put(key, Buffer.from('clock'), signal))
    try {
      const [probe] = await ask((signal) => service.list(`${base}0`, 1, signal))
      if (probe?.key !== key || !Number.isFinite(probe.modifiedAtMs))
        throw new StoreError('unavailable', 'does not list what was just written')
      return probe.modifiedAtMs
    } finally {
      await asking.tidy((signal) => service.remove([key], signal))
    }
  }

  return {
    name: service.name,
    place: service.place,
    send,
    complete,
    list,
    readMarker,
    nowMs: storeNowMs,

    async writeMarker(text, { replace }) {
      const bytes = Buffer.from(text)
      await ask((signal) =>
        replace ? service.put(MARKER_NAME, bytes, signal) : service.putIfAbsent(MARKER_NAME, bytes, signal),
      )
    },

    begin: async (session, begun): Promise<Attempt> => {
      begun.signal?.throwIfAborted()
      return new PartAttempt({ service, asking, buffers, session, begun })
    },

    async abandon(session) {
      const { upload } = notesOf(session)
      if (upload !== undefined) await ask((signal) => service.dropUpload(upload, signal))
      const keys = sessionKeys(session.parts)
      if (keys.length > 0) await ask((signal) => service.remove(keys, signal))
    },

    read: (key, size) => {
      requireKey(key)
      return inTurn(() => ask((signal) => readWhole(service, { key, size }, signal)))
    },

    async remove(keys) {
      for (const key of keys) requireKey(key)
      if (keys.length > 0) await ask((signal) => service.remove(keys, signal))
    },

    statIsLocal: false,
    async stat(key) {
      requireKey(key)
      const size = await inTurn(() => ask((signal) => service.size(key, signal)))
      if (size !== undefined) return { size }
      // HEAD returns the same result for a missing bucket and a missing object. A list distinguishes them.
      await ask((signal) => service.list('', 1, signal))
      return undefined
    },

    keysOf: sessionKeys,

    async dropUnfinished(startedBeforeMs, held) {
      const uploads = await ask((signal) => service.listUploads(signal))
      const old = uploads.filter(({ startedAtMs }) => startedAtMs < startedBeforeMs)
      if (old.length === 0) return 0
      const keep = await held(old.map(({ key }) => key))
      const orphans = old.filter(({ key }) => !keep.has(key))
      for (const upload of orphans) await ask((signal) => service.dropUpload(upload, signal))
      return orphans.length
    },

    url,
    async proxyPath(key) {
      const link = await url(key)
      if (link === undefined) return undefined
      const { pathname, search } = new URL(link)
      return pathname + search
    },

    check() {
      const atMs = performance.now()
      if (checked === undefined || atMs - checked.atMs > CHECK_TTL_MS) checked = { atMs, outcome: probe() }
      return checked.outcome
    },

    [Symbol.asyncDispose]: async () => service[Symbol.asyncDispose](),
  }
}

const NEVER_ABORTED = new AbortController().signal

function requireKey(key: string): void {
  if (!KEY.test(key)) throw new StoreError('corrupt', 'not a key of an object store')
}

function requireRestKey(notes: PartNotes): string {
  const key = restKey(notes)
  if (key === undefined) throw new StoreError('corrupt', 'a session has bytes and no object')
  return key
}
