// GET of a blob that is in another region: passed on as it comes, whole. Ranges are not honoured (RFC 9110, 14.2 allows
// that): the client gets all of it, proved by the digest before the end.

import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { findRemoteBlob, passOn } from '#shared/replication/read-through.ts'
import { type Exchange, type Headers, isHead, writeHead } from '../exchange.ts'
import { SinkClosedError, writableSink } from '../writable-sink.ts'

/**
 * Answers with the blob if another region has it. False: nothing was answered. HEAD is not asked for elsewhere: clients skip
 * an upload on its word, and a push must end with the bytes here.
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
  using watch = edge.rateGuard.watch(() => response.destroy())
  using sink = writableSink(response, (bytes) => {
    watch.progress(bytes)
    exchange.bodyBytes += bytes
  })
  delete headers['Accept-Ranges']
  writeHead(exchange, 200, { ...headers, 'Content-Length': blob.size })
  try {
    await passOn(blob, digest, sink)
    response.end()
  } catch (thrown) {
    // What is under way must not look like the end of the blob. A client that leaves is no error of ours.
    response.destroy()
    if (!(thrown instanceof SinkClosedError) && !signal.aborted) throw thrown
  }
  return true
}
