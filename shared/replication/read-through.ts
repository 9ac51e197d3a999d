// Reads content that is in another region and not here yet.
//
// A repository may link a blob whose bytes have not arrived, because its manifest was pushed elsewhere. Such a blob is
// read from a region that has it and passed on as it arrives. The last bytes are held back until the digest is
// verified. So if a peer sends wrong bytes, the connection breaks, and the client never gets a complete-looking blob. A
// blob that the repository does not link is not requested: a deleted blob stays deleted, whatever other regions still
// have.

import { type ByteSink, StoreError } from '#shared/blobs/blob-store.ts'
import { provingSink } from '#shared/blobs/proving-sink.ts'
import { isBlobLinked } from '#shared/db/memberships.ts'
import type { Queryable } from '#shared/db/statement.ts'
import { RegistryError } from '#shared/errors.ts'
import { algorithmOf, type Digest, digestBytes } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import type { PeerContent, RemoteBlob } from '#shared/peers/peer-content.ts'

/**
 * Returns a blob of this repository that another region has, or undefined if the repository does not link it or no
 * region has it. The caller must read its body to the end or cancel it.
 *
 * @throws RegistryError UNAVAILABLE if a region that may have it is unreachable
 */
export async function findRemoteBlob(
  context: { reads: Queryable; content: PeerContent },
  asked: { repository: RepositoryName; digest: Digest; signal: AbortSignal },
): Promise<RemoteBlob | undefined> {
  const { repository, digest } = asked
  if (!(await isBlobLinked(context.reads, { repository, digest }))) return undefined
  const outcome = await context.content.blob(asked)
  if (outcome.kind === 'found') return outcome.blob
  if (outcome.kind === 'nowhere') return undefined
  throw new RegistryError('UNAVAILABLE', {
    message: 'the blob is in a region that is unreachable',
    details: [{ digest }],
    headers: { 'Retry-After': '5' },
  })
}

/**
 * Writes all bytes of the blob to the sink, or rejects.
 * @throws StoreError 'corrupt' if they do not match the digest
 */
export async function passOn(blob: RemoteBlob, digest: Digest, sink: ByteSink): Promise<void> {
  // There will be no bytes to verify.
  if (blob.size === 0 && digest !== digestBytes(algorithmOf(digest), Buffer.alloc(0)))
    throw new StoreError('corrupt', `${blob.peer} has no bytes for ${digest}`)
  const proving = provingSink(sink, { digest, size: blob.size })
  let left = blob.size
  for await (const chunk of blob.body) {
    left -= chunk.length
    if (left < 0) throw new StoreError('corrupt', `${blob.peer} sends more of ${digest} than it announced`)
    await proving.write(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength))
  }
  if (left > 0) throw new StoreError('unavailable', `${blob.peer} broke off in ${digest}`)
}
