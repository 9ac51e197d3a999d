// Reads of content that is in another region and not here yet.
//
// A repository may link a blob whose bytes have not come: its manifest was pushed elsewhere. Such a blob is read from a
// region that has it, and passed on as it comes; the last bytes wait for the digest, so a peer that sends something else
// breaks the connection and never makes a blob that looks whole. A blob that the repository does not link is not asked
// for: a deleted one stays deleted, whatever others still have.

import { type ByteSink, StoreError } from '#shared/blobs/blob-store.ts'
import { provingSink } from '#shared/blobs/proving-sink.ts'
import { isBlobLinked } from '#shared/db/memberships.ts'
import type { Queryable } from '#shared/db/statement.ts'
import { RegistryError } from '#shared/errors.ts'
import { algorithmOf, type Digest, digestBytes } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import type { PeerContent, RemoteBlob } from '#shared/peers/peer-content.ts'

/**
 * A blob of this repository that another region has; undefined when the repository does not link it, or nobody has it.
 * The caller reads its body to the end or cancels it.
 *
 * @throws RegistryError UNAVAILABLE when a region that may have it is out of reach
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
    message: 'the blob is in a region that is out of reach',
    details: [{ digest }],
    headers: { 'Retry-After': '5' },
  })
}

/** All bytes of the blob to the sink, or it rejects. @throws StoreError 'corrupt' when they are not the blob's */
export async function passOn(blob: RemoteBlob, digest: Digest, sink: ByteSink): Promise<void> {
  // Nothing will come that could be proved.
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
