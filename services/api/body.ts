// Request bodies: read once, bounded in size, and with a minimum rate.

import { finished } from 'node:stream'
import { RegistryError } from '#shared/errors.ts'
import type { IncomingBody } from '#shared/registry/small-body.ts'
import type { Exchange } from './exchange.ts'

/** Bytes of one body that have been read from the socket but not yet by the reader. */
const AHEAD_BYTES_MAX = 128 * 1024

/** The body as a stream for an upload. Ends with an error if the client disconnects or sends too slowly. */
export function incomingBody(exchange: Exchange): IncomingBody {
  return { chunks: chunksOf(exchange), length: contentLength(exchange), signal: exchange.signal }
}

/** Content-Length; 0 for a request without a body; undefined for a chunked one. */
export function contentLength(exchange: Exchange): number | undefined {
  const { headers } = exchange.request
  if (headers['transfer-encoding'] !== undefined) return undefined
  // Node's parser has already rejected anything but digits.
  return Number(headers['content-length'] ?? 0)
}

/**
 * Yields chunks as they arrive from the socket. The request flows while there is a reader: each chunk is taken within
 * the read of the event loop. Node's own iterator would wait a turn and join chunks by copying them.
 */
async function* chunksOf(exchange: Exchange): AsyncGenerator<Buffer> {
  const { request, response, region, edge } = exchange
  // A client that sent `Expect: 100-continue` gets its answer only now, after the checks on the request have passed.
  if (request.headers.expect !== undefined) response.writeContinue()
  let slow = false
  using watch = edge.rateGuard.watch(() => {
    slow = true
    request.destroy()
  })
  let queue: Buffer[] = []
  let queuedBytes = 0
  let end: { failure?: unknown } | undefined
  let wake = () => {}
  const take = (chunk: Buffer) => {
    watch.progress(chunk.length)
    region.metrics.bytesIn(chunk.length)
    queue.push(chunk)
    queuedBytes += chunk.length
    if (queuedBytes >= AHEAD_BYTES_MAX) request.pause()
    wake()
  }
  const forget = finished(request, { writable: false }, (failure) => {
    end = { failure }
    wake()
  })
  request.on('data', take)
  try {
    while (queue.length > 0 || end === undefined) {
      const chunks = queue
      queue = []
      queuedBytes = 0
      yield* chunks
      if (request.isPaused()) request.resume()
      if (queue.length > 0 || end !== undefined) continue
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  } finally {
    // A reader that stops early still has a reply to send on this connection, so error-reply.ts ends the connection.
    forget()
    request.off('data', take)
    request.pause()
  }
  if (end.failure !== undefined || !request.complete) throw slow ? tooSlow() : clientGone(end.failure)
}

function tooSlow(): RegistryError {
  return new RegistryError('REQUEST_INVALID', {
    status: 408,
    message: 'the body arrives too slowly',
    closeConnection: true,
  })
}

/** If the connection is closed, nobody receives this error. A client that only stopped sending receives it. */
function clientGone(cause: unknown): RegistryError {
  return new RegistryError('SIZE_INVALID', {
    message: 'the body ended before all of it had arrived',
    closeConnection: true,
    cause,
  })
}

/** Reads the whole body into memory. Throws 413 with `code` above `bytesMax`; at most one chunk more is read. */
export async function readBody(
  exchange: Exchange,
  options: { bytesMax: number; code: 'SIZE_INVALID' | 'MANIFEST_INVALID' | 'REQUEST_INVALID' },
): Promise<Buffer> {
  const { bytesMax, code } = options
  const tooLarge = () =>
    new RegistryError(code, {
      status: 413,
      message: `the body is larger than ${bytesMax} bytes`,
      closeConnection: true,
    })
  const length = contentLength(exchange)
  if (length !== undefined && length > bytesMax) throw tooLarge()
  const chunks: Buffer[] = []
  let received = 0
  for await (const chunk of chunksOf(exchange)) {
    received += chunk.length
    if (received > bytesMax) throw tooLarge()
    chunks.push(chunk)
  }
  return chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks)
}
