// Blobs whose bytes another server sends: the object store through a link, or nginx in front through X-Accel-Redirect.
// Both are used only if the operator enables them (PORTOLAN_REDIRECT), only for GET, and only for blobs that are large
// enough. Every other request is served from here as if nothing was configured.
//
// A link or an internal path grants the right to pull. It is never logged or cached, and the path is sent only on a
// connection from a trusted proxy. Bytes that other servers send are not hashed in transit. The scrub of the janitor
// checks them periodically.

import type { FoundBlob } from '#shared/db/lookups.ts'
import type { ByteRange } from '#shared/oci/byte-range.ts'
import { blobProxyPath, blobUrl, requireObject } from '#shared/registry/pull.ts'
import { type Exchange, type Headers, isHead, sendEmpty } from '../exchange.ts'

/**
 * The prefix of nginx's internal locations, one for each store: /portolan-blobs/file/, /portolan-blobs/s3/ and so on.
 */
const INTERNAL_PREFIX = '/portolan-blobs/'

/**
 * Returns true if the client was redirected to the object store. The client repeats its Range there. A link is valid
 * for GET only.
 */
export async function redirectedToStore(exchange: Exchange, blob: FoundBlob): Promise<boolean> {
  if (sender(exchange, blob) !== 'link') return false
  const url = await blobUrl(exchange.registry, blob)
  if (url === undefined) return false
  sendEmpty(exchange, 307, { Location: url, 'Docker-Content-Digest': blob.digest })
  return true
}

/**
 * Returns true if nginx was told to send the bytes (X-Accel-Redirect). nginx applies the Range of the client itself. It
 * handles several ranges, a malformed Range and If-Range differently from us, so those requests are served from here.
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
  // We must detect a missing file: nginx would return 404 without our envelope, and the blob would not be marked.
  await requireObject(registry, blob)
  // nginx sends Accept-Ranges itself.
  const { 'Accept-Ranges': _, ...kept } = headers
  sendEmpty(exchange, 200, { ...kept, 'X-Accel-Redirect': `${INTERNAL_PREFIX}${blob.store}${path}` })
  return true
}

function sender(exchange: Exchange, blob: FoundBlob): 'link' | 'proxy' | undefined {
  return isHead(exchange) ? undefined : exchange.edge.redirects(blob.size, exchange.remoteAddress)
}
