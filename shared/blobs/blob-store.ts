// BlobStore: bytes under opaque keys, the one interface for files, S3, Google Cloud Storage and Azure.
//
// A store knows nothing of digests as names, repositories or tags: Postgres maps a digest to (store, key), and that
// row is the commit. So a commit never copies bytes, whatever the store, and keys are never reused: a late write or
// delete under an old key can touch nothing that is committed.
//
// An upload is a session that any node may continue. Its state is `StoredSession`, plain JSON kept in the upload's
// row; nothing of it lives on a node. Each request body is one attempt: its bytes go to a place of their own, and it
// joins the session only when the caller records the session that `finish` returned by compare-and-set. A writer that
// lost that race, or was frozen and woke up, has touched nothing that anybody else reads.
//
// Layout of the file store, drawn once:
//   <data>/<region>/blobs/<first two of key>/<key>      one attempt or one concatenation, never reopened for writing
// and of the others:
//   <bucket>/<prefix><key>                              one upload in parts, or one small object; never overwritten
// Beside them lies one marker, `portolan-store.json`, that says who owns the store (store-owner.ts).
//
// Failures: a method rejects with StoreError; `retryable` says whether the same call may succeed later. Absence of an
// object that a row names is a StoreError too ('missing'): it is never an empty answer.

import type { Digest, DigestAlgorithm } from '#shared/oci/digest.ts'

/** What a store remembers of an upload between requests. JSON, at most some hundred KB; opaque to everyone else. */
export interface StoredSession {
  /** Bytes durably in the session: the upload's offset. */
  readonly size: number
  /** Digest of all bytes so far where it is known without reading them again: after one attempt. */
  readonly digest: Digest | null
  /** The store's own notes: keys, part numbers, ETags. */
  readonly parts: readonly unknown[]
}

export const EMPTY_SESSION: StoredSession = Object.freeze({ size: 0, digest: null, parts: [] })

/** Bytes on their way to a client or another store. */
export interface ByteSink {
  /** Resolves when the chunk's memory may be used again; rejects when the receiver is gone. One call at a time. */
  write(chunk: Buffer): Promise<void>
  /** Several chunks in one go, for receivers that do that cheaper. Same promise as `write`. */
  writeAll?(chunks: readonly Buffer[]): Promise<void>
}

/** One request body being written. Must be finished or aborted; disposing an unfinished one aborts it. */
export interface Attempt extends AsyncDisposable {
  /**
   * Takes the bytes in order, and the chunk's memory for good: a large chunk may be empty afterwards. Resolves when more
   * may be given (back-pressure).
   */
  write(chunk: Buffer): Promise<void>
  /** All bytes are durable when it resolves (files: data and directory are synced). Returns the session with them appended. */
  finish(): Promise<StoredSession>
  /**
   * To be called when the session's row counts on this attempt: removes what the session held before and needs no
   * more. Dying before it leaves orphans for the sweep.
   */
  joined(): Promise<void>
  /** Where its bytes are so far: what a sweep must not touch while they arrive. Grows while it is written. */
  keys(): readonly string[]
  /** Drops this attempt's bytes, also after `finish`. Idempotent, never throws for bytes that are already gone. */
  abort(): Promise<void>
}

export interface AttemptOptions {
  /** What the attempt's bytes are hashed with while they stream; the session's digest uses it. */
  algorithm: DigestAlgorithm
  /** Bytes that will come, where it is known: less memory is set aside for a small body. */
  length?: number | undefined
  /** Aborts pending work when the client goes away. */
  signal?: AbortSignal
}

/** A finished object: what a blob row records. */
export interface StoredObject {
  readonly key: string
  readonly size: number
  /** In the algorithm that was asked for. */
  readonly digest: Digest
}

export interface Completion {
  readonly object: StoredObject
  /** Keys of the session that the object does not use; to be removed after the row is committed. */
  readonly surplus: readonly string[]
  /** True when `complete` made the object under a key of its own: whoever then loses the commit may remove it. */
  readonly fresh: boolean
}

export interface ObjectStat {
  readonly size: number
  /**
   * Changes whenever somebody writes to the object, where that is known without a request (files); undefined
   * elsewhere. Two equal versions say that nobody wrote in between, not that the medium kept every bit.
   */
  readonly version?: string
}

export interface ListedObject {
  readonly key: string
  readonly size: number
  readonly modifiedAtMs: number
}

/** Whose rows say what is needed in a store. */
export interface StoreOwner {
  readonly region: string
  /** The uuid of the region's database. */
  readonly database: string
}

export const MARKER_NAME = 'portolan-store.json'
/** A marker has some hundred bytes. */
export const MARKER_BYTES_MAX = 4_096

export interface BlobStore extends AsyncDisposable {
  /** The name kept in blob.store and upload.store: 'file', 's3', 'gcs', 'azure'. */
  readonly name: string
  /** Where it keeps things, for the operator: `the S3 bucket "images"`. */
  readonly place: string

  /** Begins an attempt that would append to the session. Allocates nothing that outlives a crash unseen by `list`. */
  begin(session: StoredSession, options: AttemptOptions): Promise<Attempt>

  /**
   * Makes the session one durable object. No bytes are read when the session is one attempt hashed with `algorithm`;
   * otherwise they are read once to be hashed (and, for files, concatenated under a new key).
   * An empty session gives an object of zero bytes. Rejects with 'lost' when it meets bytes that are gone; what is
   * not read here is not looked for either: the caller proves the object by `stat` before it commits the row.
   */
  complete(session: StoredSession, options: AttemptOptions): Promise<Completion>

  /** Drops all bytes of a session that will not be completed. Idempotent. */
  abandon(session: StoredSession): Promise<void>

  /**
   * Sends bytes start..end (inclusive, 0 <= start <= end < size) to the sink, in order and all of them, or rejects:
   * never a short body that looks whole. Memory comes from the process-wide budget. Stops when the signal aborts.
   */
  send(key: string, range: { start: number; end: number }, sink: ByteSink, signal: AbortSignal): Promise<void>

  /**
   * The object's size now; undefined: it is not there, although the store is. A store that is away, empty because it
   * is not mounted, or whose bucket is gone rejects instead: nobody may take its objects for lost.
   */
  stat(key: string): Promise<ObjectStat | undefined>

  /** `stat` costs a system call, not a request: it may be asked before each read. */
  readonly statIsLocal: boolean

  /** A whole small object; the caller bounds its size. Rejects unless exactly `size` bytes are there. */
  read(key: string, size: number): Promise<Buffer>

  /** Removes objects. Idempotent: keys that are gone are fine. At most 1,000 keys a call. */
  remove(keys: readonly string[]): Promise<void>

  /**
   * Objects after the given key in byte order, at most `limit` (<= 1,000): what the orphan sweep pages through. Only
   * what has the form of a key: neither the marker nor what others keep beside the blobs. [] is the end.
   */
  list(after: string, limit: number): Promise<readonly ListedObject[]>

  /** The keys that a session's parts hold: what the orphan sweep must not touch. */
  keysOf(parts: readonly unknown[]): string[]

  /**
   * Removes up to 1,000 uploads that were begun before `startedBeforeMs` (by the store's clock), never ended, and hold
   * none of the keys that `held` says are in use. Returns how many. 0 for stores that keep nothing out of sight of `list`.
   */
  dropUnfinished(
    startedBeforeMs: number,
    held: (keys: readonly string[]) => Promise<ReadonlySet<string>>,
  ): Promise<number>

  /** The marker's text; undefined: there is none. */
  readMarker(): Promise<string | undefined>

  /**
   * Writes the marker; durable when it resolves. Without `replace` one that is there stays as it is, and that is no
   * error: the caller reads back whose it is. store-owner.ts says where two writers at once are told apart.
   */
  writeMarker(text: string, options: { replace: boolean }): Promise<void>

  /** What the store's own clock says now: the one that `modifiedAtMs` is measured with. Costs a small write. */
  nowMs(): Promise<number>

  /**
   * Where a client may fetch the object itself, without asking us, until at least 20 minutes from now. The same for
   * everybody who asks within some minutes, so that caches in between work. undefined: this store has no such thing.
   */
  url(key: string): Promise<string | undefined>

  /**
   * Where a proxy that reads this store itself finds the object: a path from the store's root, with the query of a link
   * as `url` makes it where the store is a service. undefined: this store has no such thing.
   */
  proxyPath(key: string): Promise<string | undefined>

  /** Writes, reads back and removes a probe object. Rejects with one sentence that says what is wrong. */
  check(): Promise<void>
}

export class StoreError extends Error {
  override readonly name = 'StoreError'
  /** 'lost': the session's bytes are gone or not what the row says; the upload has to begin again. */
  readonly kind: 'missing' | 'full' | 'denied' | 'corrupt' | 'lost' | 'unavailable'
  readonly retryable: boolean

  constructor(kind: StoreError['kind'], message: string, options: { cause?: unknown } = {}) {
    super(message, options)
    this.kind = kind
    this.retryable = kind === 'unavailable' || kind === 'full'
  }
}
