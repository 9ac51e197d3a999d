// Writes one request body into a store: all of it, or nothing. While it arrives, the sweep is told about its bytes.

import type { Attempt, BlobStore, StoredSession } from '#shared/blobs/blob-store.ts'
import type { DigestAlgorithm } from '#shared/oci/digest.ts'
import { keepAttempt } from './keep-attempt.ts'
import type { Registry } from './registry.ts'
import { type BodyRange, expectedLength, type IncomingBody, sizeInvalid } from './small-body.ts'

/**
 * Returns the session with the body appended, durable. Dispose `kept` when a row names the bytes.
 * @throws RegistryError SIZE_INVALID if the body does not have the expected length; nothing of it is kept
 */
export async function writeAttempt(
  registry: Registry,
  options: {
    store: BlobStore
    from: StoredSession
    algorithm: DigestAlgorithm
    body: IncomingBody
    range?: BodyRange | undefined
  },
): Promise<{ attempt: Attempt; kept: AsyncDisposable; session: StoredSession }> {
  const { store, body, range } = options
  const attempt = await store.begin(options.from, {
    algorithm: options.algorithm,
    length: body.length,
    signal: body.signal,
  })
  const kept = keepAttempt(registry, { store, attempt })
  try {
    const expected = expectedLength(body, range)
    let received = 0
    for await (const chunk of body.chunks) {
      received += chunk.length
      if (expected !== undefined && received > expected) break
      await attempt.write(chunk)
    }
    if (expected !== undefined && received !== expected) throw sizeInvalid()
    return { attempt, kept, session: await attempt.finish() }
  } catch (thrown) {
    await attempt.abort()
    await kept[Symbol.asyncDispose]()
    throw thrown
  }
}
