// A request body that may be small. It is held in memory up to a number of bytes, so that it needs no file and no
// object. A larger body continues as a stream that begins with the bytes already read.

import { RegistryError } from '#shared/errors.ts'

/** An incoming request body. */
export interface IncomingBody {
  /** The bytes in order. Throws if the client disconnects or sends too slowly. */
  readonly chunks: AsyncIterable<Buffer>
  /** Content-Length. undefined for a chunked body. */
  readonly length: number | undefined
  readonly signal: AbortSignal
}

export interface BodyRange {
  readonly start: number
  readonly end: number
}

/** Returns how many bytes must come, or undefined if any number is accepted. */
export function expectedLength(body: IncomingBody, range: BodyRange | undefined): number | undefined {
  return body.length ?? (range && range.end - range.start + 1)
}

export type MaybeSmall = { readonly bytes: Buffer } | { readonly body: IncomingBody }

/**
 * Returns the body's bytes if there are at most `bytesMax`. Otherwise returns the body, with at most one chunk more
 * than `bytesMax` in memory.
 * @throws RegistryError SIZE_INVALID if a small body does not have the expected length
 */
export async function readIfSmall(
  body: IncomingBody,
  options: { bytesMax: number; range: BodyRange | undefined },
): Promise<MaybeSmall> {
  const { bytesMax, range } = options
  const expected = expectedLength(body, range)
  if (bytesMax < 0 || (expected !== undefined && expected > bytesMax)) return { body }
  const chunks: Buffer[] = []
  let received = 0
  const iterator = body.chunks[Symbol.asyncIterator]()
  for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
    chunks.push(next.value)
    received += next.value.length
    if (received > bytesMax) return { body: { ...body, chunks: resumed(chunks, iterator) } }
  }
  if (expected !== undefined && received !== expected) throw sizeInvalid()
  const [only] = chunks
  return { bytes: chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks) }
}

/** The error to throw if a body does not have the announced length. */
export function sizeInvalid(): RegistryError {
  return new RegistryError('SIZE_INVALID', { closeConnection: true })
}

/** Returns a body that consists of these bytes, followed by another body. */
export function prefixed(
  bytes: Buffer,
  { body, ...rest }: { body: IncomingBody; range?: BodyRange | undefined },
): IncomingBody {
  const length = expectedLength(body, rest.range)
  return {
    chunks: resumed(bytes.length === 0 ? [] : [bytes], body.chunks[Symbol.asyncIterator]()),
    length: length === undefined ? undefined : bytes.length + length,
    signal: body.signal,
  }
}

/** Returns a body that is in memory. */
export function bodyOf(bytes: Buffer, signal: AbortSignal): IncomingBody {
  return { chunks: resumed([bytes], NOTHING), length: bytes.length, signal }
}

/** Stops reading a body before its end. Call it on every exit path: a body is monitored while it is read. */
export async function giveUp(body: IncomingBody): Promise<void> {
  await body.chunks[Symbol.asyncIterator]().return?.()
}

const NOTHING: AsyncIterator<Buffer> = Object.freeze({
  next: async () => ({ done: true as const, value: undefined }),
})

/** Not a generator: a generator that was never asked for a first value would not end the other iterator. */
function resumed(chunks: readonly Buffer[], iterator: AsyncIterator<Buffer>): AsyncIterableIterator<Buffer> {
  let given = 0
  return {
    next: () => {
      const value = chunks[given++]
      return value === undefined ? iterator.next() : Promise.resolve({ done: false, value })
    },
    async return() {
      await iterator.return?.()
      return { done: true, value: undefined }
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}
