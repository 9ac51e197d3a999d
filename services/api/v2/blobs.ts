// Blobs: HEAD, GET with ranges, DELETE (distribution-spec, "Pulling blobs", "Deleting blobs"; RFC 9110, 14).
//
// Small blobs are sent from memory in one write. Large ones go from the read pump of the store directly to the socket.
// The minimum rate cuts a stalled client, and a client that disconnects stops the read. The head is sent with the first
// bytes, so a loss that is known by then is returned as an error. A stream that cannot be completed later breaks the
// connection. A short or wrong body never looks complete.

import { randomBytes } from 'node:crypto'
import type { ByteSink } from '#shared/blobs/blob-store.ts'
import type { FoundBlob } from '#shared/db/lookups.ts'
import { RegistryError } from '#shared/errors.ts'
import { type ByteRange, parseRange } from '#shared/oci/byte-range.ts'
import { hasEntityTag, rangeStillValid } from '#shared/oci/conditional.ts'
import { type Digest, parseDigest } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import {
  findBlob,
  pullManifest,
  readFailure,
  requireObject,
  sendBlob,
  smallBlobBytes,
} from '#shared/registry/pull.ts'
import { deleteContent } from '#shared/registry/remove.ts'
import {
  type Exchange,
  type Headers,
  isHead,
  positionHeader,
  provenanceOf,
  registryHeaders,
  sendBytes,
  sendEmpty,
  writeHead,
} from '../exchange.ts'
import { SinkClosedError } from '../writable-sink.ts'
import { handedToProxy, redirectedToStore } from './elsewhere.ts'
import { guardedSink } from './guarded-sink.ts'
import { getRemoteBlob } from './remote-blob.ts'

interface BlobPath {
  readonly name: RepositoryName
  readonly digest: string
}

export async function getBlob(exchange: Exchange, path: BlobPath): Promise<void> {
  const { registry, request } = exchange
  const digest = requireDigest(path.digest)
  const blob = await findBlob(registry, { repository: path.name, digest })
  if (blob === undefined) {
    const asked = { repository: path.name, digest, headers: blobHeaders(digest) }
    if (await getRemoteBlob(exchange, asked)) return
    return getManifestAsBlob(exchange, { name: path.name, digest })
  }
  if (hasEntityTag(request.headers['if-none-match'], digest))
    return sendEmpty(exchange, 304, blobHeaders(digest))
  if (await redirectedToStore(exchange, blob)) return
  return serveBlob(exchange, blob)
}

/** Sends the whole blob, or the requested ranges. */
export async function serveBlob(exchange: Exchange, blob: FoundBlob): Promise<void> {
  const { digest } = blob
  const headers = blobHeaders(digest)
  const ranges = rangesOf(exchange, { digest, size: blob.size })
  if (await handedToProxy(exchange, blob, { headers, ranges })) return
  if (ranges === 'whole') return sendWhole(exchange, blob, headers)
  const [only] = ranges
  if (ranges.length === 1 && only !== undefined) return sendRange(exchange, blob, only, headers)
  return sendRanges(exchange, blob, ranges, headers)
}

export async function deleteBlob(exchange: Exchange, path: BlobPath): Promise<void> {
  const position = await deleteContent(exchange.registry, {
    repository: path.name,
    kind: 'blob',
    digest: requireDigest(path.digest),
    provenance: provenanceOf(exchange),
  })
  sendEmpty(exchange, 202, positionHeader(exchange, position))
}

function requireDigest(text: string): Digest {
  const digest = parseDigest(text)
  if (digest === undefined) throw new RegistryError('DIGEST_INVALID')
  return digest
}

/** Some clients fall back to /blobs for a manifest whose digest they know. */
async function getManifestAsBlob(
  exchange: Exchange,
  { name, digest }: { name: RepositoryName; digest: Digest },
): Promise<void> {
  try {
    const { bytes } = await pullManifest(exchange.registry, {
      repository: name,
      reference: { kind: 'digest', digest },
    })
    sendBytes(exchange, { status: 200, headers: blobHeaders(digest), body: bytes })
  } catch (thrown) {
    if (!(thrown instanceof RegistryError) || thrown.status !== 404) throw thrown
    throw new RegistryError('BLOB_UNKNOWN', { details: [{ digest }] })
  }
}

function blobHeaders(digest: Digest): Headers {
  return {
    ...registryHeaders(),
    'Content-Type': 'application/octet-stream',
    'Docker-Content-Digest': digest,
    ETag: `"${digest}"`,
    'Accept-Ranges': 'bytes',
    'Cache-Control': 'private, max-age=31536000, immutable',
    // Uploaded content must never run in a browser under this origin.
    'Content-Disposition': 'attachment',
    'Content-Security-Policy': 'sandbox',
  }
}

/** HEAD ignores ranges (RFC 9110, 14.2). Throws 416 with the length of the error, not of the blob. */
function rangesOf(
  exchange: Exchange,
  { digest, size }: { digest: Digest; size: number },
): 'whole' | readonly ByteRange[] {
  const { headers } = exchange.request
  const ifRange = headers['if-range']
  if (isHead(exchange) || !rangeStillValid(typeof ifRange === 'string' ? ifRange : undefined, digest))
    return 'whole'
  const ranges = parseRange(headers.range, size)
  if (ranges === 'unsatisfiable') {
    throw new RegistryError('RANGE_INVALID', { headers: { 'Content-Range': `bytes */${size}` } })
  }
  return ranges
}

async function sendWhole(exchange: Exchange, blob: FoundBlob, headers: Headers): Promise<void> {
  headers['Content-Length'] = blob.size
  if (isHead(exchange)) {
    await requireObject(exchange.registry, blob)
    writeHead(exchange, 200, headers)
    exchange.response.end()
    return
  }
  const small = smallBlobBytes(exchange.registry, blob)
  if (small !== undefined) return sendBytes(exchange, { status: 200, headers, body: await small })
  await stream(exchange, blob, { status: 200, headers, parts: [{ range: { start: 0, end: blob.size - 1 } }] })
}

async function sendRange(
  exchange: Exchange,
  blob: FoundBlob,
  range: ByteRange,
  headers: Headers,
): Promise<void> {
  headers['Content-Range'] = `bytes ${range.start}-${range.end}/${blob.size}`
  const small = smallBlobBytes(exchange.registry, blob)
  if (small !== undefined) {
    const body = (await small).subarray(range.start, range.end + 1)
    return sendBytes(exchange, { status: 206, headers, body })
  }
  headers['Content-Length'] = range.end - range.start + 1
  await stream(exchange, blob, { status: 206, headers, parts: [{ range }] })
}

/** Sends multipart/byteranges (RFC 9110, 14.6), which lazy pullers request. */
async function sendRanges(
  exchange: Exchange,
  blob: FoundBlob,
  ranges: readonly ByteRange[],
  headers: Headers,
): Promise<void> {
  const boundary = randomBytes(16).toString('hex')
  const parts: Part[] = ranges.flatMap((range, index) => [
    {
      bytes: Buffer.from(
        `${index === 0 ? '' : '\r\n'}--${boundary}\r\nContent-Type: application/octet-stream\r\n` +
          `Content-Range: bytes ${range.start}-${range.end}/${blob.size}\r\n\r\n`,
      ),
    },
    { range },
  ])
  parts.push({ bytes: Buffer.from(`\r\n--${boundary}--\r\n`) })
  headers['Content-Type'] = `multipart/byteranges; boundary=${boundary}`
  headers['Content-Length'] = parts.reduce((sum, part) => sum + lengthOf(part), 0)
  await stream(exchange, blob, { status: 206, headers, parts })
}

type Part = { readonly range: ByteRange } | { readonly bytes: Buffer }

function lengthOf(part: Part): number {
  return 'bytes' in part ? part.bytes.length : part.range.end - part.range.start + 1
}

async function stream(
  exchange: Exchange,
  blob: FoundBlob,
  answer: { status: number; headers: Headers; parts: readonly Part[] },
): Promise<void> {
  const { registry, response } = exchange
  const abort = new AbortController()
  const gone = () => abort.abort(new SinkClosedError('the client went away'))
  response.once('close', gone)
  using body = guardedSink(exchange)
  const sink = afterHead(body, () => writeHead(exchange, answer.status, answer.headers))
  try {
    for (const part of answer.parts) {
      if ('bytes' in part) await sink.write(part.bytes)
      else await sendBlob(registry, blob, part.range, sink, abort.signal)
    }
    response.end()
  } catch (thrown) {
    // A partial stream must not look complete. A client that disconnects is not a server error.
    if (response.headersSent) response.destroy()
    if (!(thrown instanceof SinkClosedError)) throw await readFailure(registry, blob, thrown)
  } finally {
    response.off('close', gone)
  }
}

/** Sends the head immediately before the first bytes of the body. */
function afterHead(sink: Required<ByteSink>, sendHead: () => void): ByteSink {
  let sent = false
  const first = () => {
    if (!sent) sendHead()
    sent = true
  }
  return {
    write(chunk) {
      first()
      return sink.write(chunk)
    },
    writeAll(chunks) {
      first()
      return sink.writeAll(chunks)
    },
  }
}
