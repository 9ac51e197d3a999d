// A request body that may be small: held in memory up to a number of bytes, so that it needs no file and no object. What
// turns out to be larger goes on as a stream, with what was already read at its front.

import { RegistryError } from '#shared/errors.ts'

/** A request body on its way in. */
export interface IncomingBody {
  /** The bytes in order; throws when the client goes away or sends too slowly. */
  readonly chunks: AsyncIterable<Buffer>
  /** Content-Length; undefined for a chunked body. */
  readonly length: number | undefined
  readonly signal: AbortSignal
}

export interface BodyRange {
  readonly start: number
  readonly end: number
}

/** How many bytes must come; undefined: as many as do. */
export function expectedLength(body: IncomingBody, range: BodyRange | undefined): number | undefined {
  return body.length ?? (range && range.end - range.start + 1)
}

export type MaybeSmall = { readonly bytes: Buffer } | { readonly body: IncomingBody }

/**
 * The body's bytes when it has at most `bytesMax`, else the body, of which at most one chunk more than that is in memory.
 * @throws RegistryError SIZE_INVALID when a small one has not as many bytes as it must
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

/** To be thrown when a body does not have the bytes that were announced. */
export function sizeInvalid(): RegistryError {
  return new RegistryError('SIZE_INVALID', { closeConnection: true })
}

/** A body of these bytes and then another's. */
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

/** A body that is in memory. */
export function bodyOf(bytes: Buffer, signal: AbortSignal): IncomingBody {
  return { chunks: resumed([bytes], NOTHING), length: bytes.length, signal }
}

/** Ends the reading of a body that is not wanted to its end. To be called on every way out: a body is watched while it is read. */
export async function giveUp(body: IncomingBody): Promise<void> {
  await body.chunks[Symbol.asyncIterator]().return?.()
}

const NOTHING: AsyncIterator<Buffer> = Object.freeze({
  next: async () => ({ done: true as const, value: undefined }),
})

/** No generator: one that was never asked for its first value would not end the other. */
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
