// The operations that an object store's SDK must provide: the narrow port under part-store.ts. One file per cloud
// implements it, and only that file uses the SDK.
//
// An implementation never retries and never waits without a bound. retry.ts does both and uses `failureOf` to classify
// errors. Keys are 32 hex digits; the implementation adds the configured prefix. If the service does not report the
// time of an object, it is Infinity, so the object is never old enough to be removed.

import type { Readable } from 'node:stream'
import type { ListedObject, StoreError } from '../blob-store.ts'

/** An upload in parts that is in progress, as recorded in the session's row. */
export interface PartUpload {
  readonly key: string
  /** The id that the service assigns: upload id, session URI; '' if the key is enough. */
  readonly id: string
}

export interface Failure {
  readonly kind: StoreError['kind']
  /** True if the same request may succeed when it is sent again. */
  readonly again: boolean
  /** One sentence for the operator, without secrets. */
  readonly message: string
}

export interface ObjectService extends AsyncDisposable {
  /** 's3', 'gcs', 'azure': stored in rows. */
  readonly name: string
  /** The location of the store, for the operator: `the S3 bucket "images"`. */
  readonly place: string
  /**
   * Size of the part with this number (from 1), which one upload buffers. undefined: the service accepts no more parts.
   */
  partBytes(number: number): number | undefined
  /**
   * Splits the last bytes of an attempt: `part` of them may stay before further parts, `rest` of them may not. part +
   * rest = bytes.
   */
  split(bytes: number): { readonly part: number; readonly rest: number }
  /**
   * Where the rest is kept until more bytes arrive: in a separate object beside a provisional last part, or in the
   * session's row.
   */
  readonly rest: 'object' | 'row'
  /** Stores a whole object in one request. */
  put(key: string, body: Buffer, signal: AbortSignal): Promise<void>
  /**
   * Like `put`, but only if no object has this name. An existing object is left unchanged, and no error is raised. A
   * server that does not support the condition may overwrite it, so the caller reads the object back.
   */
  putIfAbsent(name: string, body: Buffer, signal: AbortSignal): Promise<void>
  startUpload(key: string, signal: AbortSignal): Promise<PartUpload>
  /** Safe to repeat with the same number, offset and body. Returns the tag to pass to finishUpload. */
  putPart(
    upload: PartUpload,
    part: { readonly number: number; readonly offset: number; readonly body: Buffer },
    signal: AbortSignal,
  ): Promise<string>
  /**
   * Joins the named parts, followed by `rest`, into one object. A repeated call is not an error in itself, but may fail
   * with 'lost'.
   */
  finishUpload(
    upload: PartUpload,
    whole: { readonly tags: readonly string[]; readonly offset: number; readonly rest: Buffer },
    signal: AbortSignal,
  ): Promise<void>
  /** Idempotent. */
  dropUpload(upload: PartUpload, signal: AbortSignal): Promise<void>
  /** Bytes start..end (inclusive). `bytes` is the length that the service announces. */
  get(
    key: string,
    range: { readonly start: number; readonly end: number } | undefined,
    signal: AbortSignal,
  ): Promise<{ readonly bytes: number; readonly body: Readable }>
  /** undefined: the object does not exist. */
  size(key: string, signal: AbortSignal): Promise<number | undefined>
  /** At most 1,000 keys. Missing keys are not an error. */
  remove(keys: readonly string[], signal: AbortSignal): Promise<void>
  /** Objects in byte order of their keys, after the given one. */
  list(after: string, limit: number, signal: AbortSignal): Promise<readonly ListedObject[]>
  /**
   * Uploads that have begun and were neither finished nor dropped; [] if the service expires them itself. At most
   * 1,000, oldest first as far as it can tell.
   */
  listUploads(signal: AbortSignal): Promise<readonly (PartUpload & { readonly startedAtMs: number })[]>
  /**
   * A URL that allows anyone to GET the object for `seconds` from `nowMs`; undefined if the credentials cannot sign.
   */
  presign(
    key: string,
    options: { readonly nowMs: number; readonly seconds: number },
  ): Promise<string | undefined>
  failureOf(thrown: unknown): Failure
}
