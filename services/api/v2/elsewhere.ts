// Blob bytes that somebody else sends: the object store by a link, or nginx in front by X-Accel-Redirect. Both only when
// the operator asked for it (PORTOLAN_REDIRECT), only for GET, and only for blobs that are worth it; whatever does not
// fit is served from here as if nothing was configured.
//
// A link or an internal path is a right to pull. It stands in no log, no cache keeps it, and the path leaves only to a
// connection that a trusted proxy made. What others send is not hashed on the way; the janitor's scrub comes by it.

import type { FoundBlob } from '#shared/db/lookups.ts'
import type { ByteRange } from '#shared/oci/byte-range.ts'
import { blobProxyPath, blobUrl, requireObject } from '#shared/registry/pull.ts'
import { type Exchange, type Headers, isHead, sendEmpty } from '../exchange.ts'

/** Where nginx has its internal locations, one for each store: /portolan-blobs/file/, /portolan-blobs/s3/ and so on. */
const INTERNAL_PREFIX = '/portolan-blobs/'

/** True when the client was sent to the object store; it repeats its Range there. What a link answers to is GET alone. */
export async function redirectedToStore(exchange: Exchange, blob: FoundBlob): Promise<boolean> {
  if (sender(exchange, blob) !== 'link') return false
  const url = await blobUrl(exchange.registry, blob)
  if (url === undefined) return false
  sendEmpty(exchange, 307, { Location: url, 'Docker-Content-Digest': blob.digest })
  return true
}

/**
 * True when nginx was told to send the bytes (X-Accel-Redirect). It applies the client's Range itself, and differs from
 * us in what it makes of several ranges, a malformed one and If-Range: those are served from here.
 */
export async function handedToProxy(
  exchange: Exchange,
  blob: FoundBlob,
  { headers, ranges }: { headers: Headers; ranges: 'whole' | readonly ByteRange[] },
): Promise<boolean> {
  const { registry, request, trusted } = exchange
  if (!trusted || sender(exchange, blob) !== 'proxy') return false
  const { range, 'if-range': ifRange } = request.headers
  const plain = ranges === 'whole' ? range === undefined : ranges.length === 1 && ifRange === undefined
  if (!plain) return false
  const path = await blobProxyPath(registry, blob)
  if (path === undefined) return false
  // A file that is gone is for us to find: nginx would answer 404 without our envelope, and nobody would mark the blob.
  await requireObject(registry, blob)
  // nginx says itself that it knows ranges.
  const { 'Accept-Ranges': _, ...kept } = headers
  sendEmpty(exchange, 200, { ...kept, 'X-Accel-Redirect': `${INTERNAL_PREFIX}${blob.store}${path}` })
  return true
}

function sender(exchange: Exchange, blob: FoundBlob): 'link' | 'proxy' | undefined {
  return isHead(exchange) ? undefined : exchange.edge.redirects(blob.size, exchange.remoteAddress)
}
