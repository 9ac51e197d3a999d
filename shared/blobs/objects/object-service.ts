// What an object store's SDK has to do for us: the narrow port under part-store.ts. One file implements it per cloud,
// and that file is the only one that knows the SDK.
//
// An implementation never retries by itself and never waits without a bound: retry.ts does both, asking `failureOf`
// what an error means. Keys arrive as 32 hex digits and are put under the configured prefix by the implementation.
// An object's time that the service does not tell is Infinity: it is never old enough to be removed.

import type { Readable } from 'node:stream'
import type { ListedObject, StoreError } from '../blob-store.ts'

/** An upload in parts that is under way: what a session's row remembers of it. */
export interface PartUpload {
  readonly key: string
  /** The service's own name for it: upload id, session URI; '' where the key is enough. */
  readonly id: string
}

export interface Failure {
  readonly kind: StoreError['kind']
  /** The same request may succeed if it is sent again. */
  readonly again: boolean
  /** One sentence for the operator, without secrets. */
  readonly message: string
}

export interface ObjectService extends AsyncDisposable {
  /** 's3', 'gcs', 'azure': kept in rows. */
  readonly name: string
  /** Where it keeps things, for the operator: `the S3 bucket "images"`. */
  readonly place: string
  /** Size of the part with this number (from 1): what one upload buffers. undefined: the service takes no more parts. */
  partBytes(number: number): number | undefined
  /**
   * What becomes of the bytes an attempt ends with: `part` of them may stay before further parts, the rest may not.
   * part + rest = bytes.
   */
  split(bytes: number): { readonly part: number; readonly rest: number }
  /** Where the rest lives until more comes: an object of its own beside a provisional last part, or the session's row. */
  readonly rest: 'object' | 'row'
  /** One request for a whole object. */
  put(key: string, body: Buffer, signal: AbortSignal): Promise<void>
  /**
   * The same, only where no object has this name; one that is there stays, and that is no error. A server that does not
   * know the condition may overwrite it: the caller reads back.
   */
  putIfAbsent(name: string, body: Buffer, signal: AbortSignal): Promise<void>
  startUpload(key: string, signal: AbortSignal): Promise<PartUpload>
  /** Sends a part again safely when it is given the same number, offset and body. Returns what finishUpload has to name. */
  putPart(
    upload: PartUpload,
    part: { readonly number: number; readonly offset: number; readonly body: Buffer },
    signal: AbortSignal,
  ): Promise<string>
  /** Makes the named parts, and `rest` after them, one object. Doing it twice is not an error of its own ('lost' may be). */
  finishUpload(
    upload: PartUpload,
    whole: { readonly tags: readonly string[]; readonly offset: number; readonly rest: Buffer },
    signal: AbortSignal,
  ): Promise<void>
  /** Idempotent. */
  dropUpload(upload: PartUpload, signal: AbortSignal): Promise<void>
  /** Bytes start..end (inclusive); `bytes` is what the service says it will send. */
  get(
    key: string,
    range: { readonly start: number; readonly end: number } | undefined,
    signal: AbortSignal,
  ): Promise<{ readonly bytes: number; readonly body: Readable }>
  /** undefined: there is no such object. */
  size(key: string, signal: AbortSignal): Promise<number | undefined>
  /** At most 1,000; keys that are gone are fine. */
  remove(keys: readonly string[], signal: AbortSignal): Promise<void>
  /** In byte order of keys, after the given one. */
  list(after: string, limit: number, signal: AbortSignal): Promise<readonly ListedObject[]>
  /** Uploads begun and neither finished nor dropped; [] where the service forgets them by itself. At most 1,000, oldest first as far as it can tell. */
  listUploads(signal: AbortSignal): Promise<readonly (PartUpload & { readonly startedAtMs: number })[]>
  /** A URL that lets anyone GET the object for `seconds` from `nowMs`; undefined where the credentials cannot sign. */
  presign(
    key: string,
    options: { readonly nowMs: number; readonly seconds: number },
  ): Promise<string | undefined>
  failureOf(thrown: unknown): Failure
}
