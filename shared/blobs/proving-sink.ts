// A sink that sends the last bytes of a blob only if all its bytes match the digest. Earlier bytes are forwarded as
// they arrive and hashed while the receiver takes them; the chunk with the end waits for the digest. So a receiver that
// knows the length (Content-Length) never gets a wrong blob that looks complete.

import { algorithmOf, createDigester, type Digest } from '#shared/oci/digest.ts'
import { type ByteSink, StoreError } from './blob-store.ts'

/** The store sent all the bytes, but they do not match the digest. */
export class WrongContentError extends StoreError {
  constructor(digest: Digest) {
    super('corrupt', `the bytes of ${digest} are not what was pushed`)
  }
}

/** For one read of a whole blob, from its first byte. @throws WrongContentError instead of sending the end */
export function provingSink(sink: ByteSink, blob: { digest: Digest; size: number }): ByteSink {
  const digester = createDigester(algorithmOf(blob.digest))
  let left = blob.size

  async function pass(chunks: readonly Buffer[], send: () => Promise<void>): Promise<void> {
    for (const { length } of chunks) left -= length
    // Hashing overlaps with the kernel taking the bytes.
    const sending = left > 0 ? send() : undefined
    for (const chunk of chunks) digester.update(chunk)
    if (sending !== undefined) return sending
    if (digester.digest() !== blob.digest) throw new WrongContentError(blob.digest)
    return send()
  }

  const { writeAll } = sink
  return {
    write: (chunk) => pass([chunk], () => sink.write(chunk)),
    ...(writeAll !== undefined && {
      writeAll: (chunks: readonly Buffer[]) => pass(chunks, () => writeAll(chunks)),
    }),
  }
}
