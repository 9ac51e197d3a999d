// One request body into a store: all of it, or nothing. While it arrives the sweep is told about its bytes.

import type { Attempt, BlobStore, StoredSession } from '#shared/blobs/blob-store.ts'
import type { DigestAlgorithm } from '#shared/oci/digest.ts'
import { keepAttempt } from './keep-attempt.ts'
import type { Registry } from './registry.ts'
import { type BodyRange, expectedLength, type IncomingBody, sizeInvalid } from './small-body.ts'

/**
 * The session with the body appended, durable. `kept` is to be disposed when a row names the bytes.
 * @throws RegistryError SIZE_INVALID when the body has not as many bytes as it must; nothing is left of it
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
