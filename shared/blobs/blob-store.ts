// BlobStore: bytes under opaque keys, the one interface for files, S3, Google Cloud Storage, Azure and rows of
// Postgres.
//
// A store does not know repositories, tags, or digests as names. Postgres maps a digest to (store, key), and that row
// is the commit. So a commit never copies bytes, whatever the store. Keys are never reused: a late write or delete
// under an old key cannot affect committed content.
//
// An upload is a session that any node may continue. Its state is `StoredSession`, plain JSON in the row of the upload;
// nothing is kept on a node. Each request body is one attempt, and its bytes go to a separate place. The attempt joins
// the session only when the caller records the session returned by `finish` with compare-and-set. A writer that lost
// that race, or was suspended and resumed later, has changed nothing that others read.
//
// Layout of the file store:
//   <data>/<region>/blobs/<first two of key>/<key>      one attempt or one concatenation, never reopened for writing
// and of the object stores:
//   <bucket>/<prefix><key>                              one upload in parts, or one small object; never overwritten
// One marker beside the blobs, `portolan-store.json`, identifies the owner of the store (store-owner.ts). Small blobs
// are rows of the region's database instead (shared/db/row-store.ts).
//
// Failures: a method rejects with StoreError; `retryable` tells whether the same call may succeed later. If a row names
// an object that does not exist, the result is a StoreError too ('missing'), never empty content.

import type { Digest, DigestAlgorithm } from '#shared/oci/digest.ts'

/** What a store records of an upload between requests. JSON, at most a few hundred KB; opaque to all other code. */
export interface StoredSession {
  /** Number of durable bytes in the session: the offset of the upload. */
  readonly size: number
  /** Digest of all bytes so far if it is known without reading them again, which is the case after one attempt. */
  readonly digest: Digest | null
  /** Internal to the store: keys, part numbers, ETags. */
  readonly parts: readonly unknown[]
}

export const EMPTY_SESSION: StoredSession = Object.freeze({ size: 0, digest: null, parts: [] })

/** Receives bytes for a client or another store. */
export interface ByteSink {
  /**
   * Resolves when the memory of the chunk may be reused; rejects if the receiver has disconnected. One call at a time.
   */
  write(chunk: Buffer): Promise<void>
  /** Writes several chunks in one call, for receivers that can do so at lower cost. Same guarantee as `write`. */
  writeAll?(chunks: readonly Buffer[]): Promise<void>
}

/** Writes one request body. Must be finished or aborted; disposing an unfinished attempt aborts it. */
export interface Attempt extends AsyncDisposable {
  /**
   * Takes the bytes in order and takes ownership of the chunk's memory: a large chunk may be empty afterwards. Resolves
   * when more bytes may be passed (back-pressure).
   */
  write(chunk: Buffer): Promise<void>
  /**
   * When it resolves, all bytes are durable (files: data and directory are synced). Returns the session with the bytes
   * appended.
   */
  finish(): Promise<StoredSession>
  /**
   * Call this when the session's row refers to this attempt. Removes what the session held before and no longer needs.
   * A crash before this call leaves orphans for the sweep.
   */
  joined(): Promise<void>
  /**
   * Keys under which bytes are stored so far. A sweep must not remove them while bytes arrive. Grows during the write.
   */
  keys(): readonly string[]
  /**
   * Removes the bytes of this attempt, also after `finish`. Idempotent, never throws for bytes that are already gone.
   */
  abort(): Promise<void>
}

export interface AttemptOptions {
  /** Hashes the bytes of the attempt while they stream. The digest of the session uses it. */
  algorithm: DigestAlgorithm
  /** Number of bytes to expect, if known. Less memory is reserved for a small body. */
  length?: number | undefined
  /** Aborts pending work when the client disconnects. */
  signal?: AbortSignal
}

/** A finished object, as a blob row records it. */
export interface StoredObject {
  readonly key: string
  readonly size: number
  /** In the requested algorithm. */
  readonly digest: Digest
}

export interface Completion {
  readonly object: StoredObject
  /** Keys of the session that the object does not use. Remove them after the row is committed. */
  readonly surplus: readonly string[]
  /** True if `complete` created the object under a new key: a caller that then loses the commit may remove it. */
  readonly fresh: boolean
}

export interface ObjectStat {
  readonly size: number
  /**
   * Changes whenever the object is written to, if this is known without a request (files); undefined for other stores.
   * Two equal versions mean that no write happened in between, not that the medium kept every bit.
   */
  readonly version?: string
}

export interface ListedObject {
  readonly key: string
  readonly size: number
  readonly modifiedAtMs: number
}

/** The owner of a store: the database whose rows decide what the store must keep. */
export interface StoreOwner {
  readonly region: string
  /** The uuid of the region's database. */
  readonly database: string
}

export const MARKER_NAME = 'portolan-store.json'
/** A marker has a few hundred bytes. */
export const MARKER_BYTES_MAX = 4_096

export interface BlobStore extends AsyncDisposable {
  /** The name stored in blob.store and upload.store: 'file', 's3', 'gcs', 'azure', 'postgres'. */
  readonly name: string
  /** The location of the store, for the operator: `the S3 bucket "images"`. */
  readonly place: string

  /** Begins an attempt to append to the session. Allocates nothing that survives a crash without showing in `list`. */
  begin(session: StoredSession, options: AttemptOptions): Promise<Attempt>

  /**
   * Turns the session into one durable object. No bytes are read if the session is one attempt hashed with `algorithm`.
   * Otherwise they are read once to be hashed (and, for files, concatenated under a new key). An empty session gives an
   * object of zero bytes. Rejects with 'lost' if bytes that it reads are gone. Bytes that it does not read are not
   * checked: the caller checks the object with `stat` before it commits the row.
   */
  complete(session: StoredSession, options: AttemptOptions): Promise<Completion>

  /** Removes all bytes of a session that will not be completed. Idempotent. */
  abandon(session: StoredSession): Promise<void>

  /**
   * Sends all bytes start..end (inclusive, 0 <= start <= end < size) to the sink in order, or rejects. A short body
   * never looks complete. Memory comes from the process-wide budget. Stops when the signal aborts.
   */
  send(key: string, range: { start: number; end: number }, sink: ByteSink, signal: AbortSignal): Promise<void>

  /**
   * The current size of the object; undefined: the store is available and the object does not exist. Rejects if the
   * store is unavailable, empty because it is not mounted, or if its bucket is gone, so that its objects are not taken
   * for lost.
   */
  stat(key: string): Promise<ObjectStat | undefined>

  /** True if `stat` costs a system call, not a request. The caller may then call it before each read. */
  readonly statIsLocal: boolean

  /** Reads a whole small object; the caller bounds its size. Rejects unless it has exactly `size` bytes. */
  read(key: string, size: number): Promise<Buffer>

  /** Removes objects. Idempotent: missing keys are not an error. At most 1,000 keys per call. */
  remove(keys: readonly string[]): Promise<void>

  /**
   * Objects after the given key in byte order, at most `limit` (<= 1,000), as pages for the orphan sweep. Returns only
   * names with the form of a key, so neither the marker nor foreign objects beside the blobs. [] is the end.
   */
  list(after: string, limit: number): Promise<readonly ListedObject[]>

  /** The keys held by the parts of a session. The orphan sweep must not remove them. */
  keysOf(parts: readonly unknown[]): string[]

  /**
   * Removes up to 1,000 uploads that began before `startedBeforeMs` (by the clock of the store), never ended, and hold
   * none of the keys that `held` reports as in use. Returns their number. Returns 0 for stores where `list` shows
   * everything.
   */
  dropUnfinished(
    startedBeforeMs: number,
    held: (keys: readonly string[]) => Promise<ReadonlySet<string>>,
  ): Promise<number>

  /** The text of the marker; undefined: there is none. */
  readMarker(): Promise<string | undefined>

  /**
   * Writes the marker; durable when it resolves. Without `replace`, an existing marker is left unchanged and no error
   * is raised; the caller reads the marker back to find the owner. store-owner.ts explains how two concurrent writers
   * are told apart.
   */
  writeMarker(text: string, options: { replace: boolean }): Promise<void>

  /** The current time of the store's own clock, the one that sets `modifiedAtMs`. Costs a small write. */
  nowMs(): Promise<number>

  /**
   * A URL where a client may fetch the object directly, valid for at least 20 minutes. All callers within a few minutes
   * get the same URL, so that intermediate caches work. undefined: the store does not support this.
   */
  url(key: string): Promise<string | undefined>

  /**
   * The path where a proxy that reads this store finds the object: relative to the root of the store, with the query of
   * a link from `url` if the store is a service. undefined: the store does not support this.
   */
  proxyPath(key: string): Promise<string | undefined>

  /** Writes, reads back and removes a probe object. Rejects with one sentence that describes the problem. */
  check(): Promise<void>
}

export class StoreError extends Error {
  override readonly name = 'StoreError'
  /** 'lost': the bytes of the session are gone or differ from what the row records. The upload must begin again. */
  readonly kind: 'missing' | 'full' | 'denied' | 'corrupt' | 'lost' | 'unavailable'
  readonly retryable: boolean

  constructor(kind: StoreError['kind'], message: string, options: { cause?: unknown } = {}) {
    super(message, options)
    this.kind = kind
    this.retryable = kind === 'unavailable' || kind === 'full'
  }
}
