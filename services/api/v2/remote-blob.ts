// GET of a blob that only another region has. The whole blob is forwarded as it arrives, and its digest is verified
// before the last bytes are sent. Ranges are ignored, which RFC 9110, 14.2 allows.

import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { findRemoteBlob, passOn } from '#shared/replication/read-through.ts'
import { type Exchange, type Headers, isHead, writeHead } from '../exchange.ts'
import { SinkClosedError } from '../writable-sink.ts'
import { guardedSink } from './guarded-sink.ts'

/**
 * Sends the blob if another region has it; returns false if no reply was sent. HEAD does not ask other regions: clients
 * skip an upload if HEAD finds the blob, and after a push the bytes must be in this region.
 */
export async function getRemoteBlob(
  exchange: Exchange,
  asked: { repository: RepositoryName; digest: Digest; headers: Headers },
): Promise<boolean> {
  const { edge, response, signal } = exchange
  const { repository, digest, headers } = asked
  if (edge.content === undefined || isHead(exchange)) return false
  const context = { reads: edge.region.reads, content: edge.content }
  const blob = await findRemoteBlob(context, { repository, digest, signal })
  if (blob === undefined) return false
  using sink = guardedSink(exchange)
  delete headers['Accept-Ranges']
  writeHead(exchange, 200, { ...headers, 'Content-Length': blob.size })
  try {
    await passOn(blob, digest, sink)
    response.end()
  } catch (thrown) {
    // A broken transfer must not look complete. A client that disconnects is not an error.
    response.destroy()
    if (!(thrown instanceof SinkClosedError) && !signal.aborted) throw thrown
  }
  return true
}
