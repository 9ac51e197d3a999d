// Request bodies: read once, bounded, and never slower than the minimum rate.

import { finished } from 'node:stream'
import { RegistryError } from '#shared/errors.ts'
import type { IncomingBody } from '#shared/registry/push-blob.ts'
import type { Exchange } from './exchange.ts'

/** Of one body, taken from the socket and not yet by the reader. */
const AHEAD_BYTES_MAX = 128 * 1024

/** The body as a stream for an upload. Ends in an error when the client breaks off or sends too slowly. */
export function incomingBody(exchange: Exchange): IncomingBody {
  return { chunks: chunksOf(exchange), length: contentLength(exchange), signal: exchange.signal }
}

/** Content-Length; 0 for a request without any body; undefined for a chunked one. */
export function contentLength(exchange: Exchange): number | undefined {
  const { headers } = exchange.request
  if (headers['transfer-encoding'] !== undefined) return undefined
  // Node's parser has already refused anything but digits.
  return Number(headers['content-length'] ?? 0)
}

/**
 * Chunks as the socket brings them. The request flows while somebody reads: each chunk is taken inside the event loop's
 * read, where an iterator of Node's waits a turn for it and joins chunks by copying them.
 */
async function* chunksOf(exchange: Exchange): AsyncGenerator<Buffer> {
  const { request, response, region, edge } = exchange
  // Only now, when the request was found worth its body, is a client that asked first told to send it.
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
    // Whoever stops reading still has an answer to send on this connection: error-reply.ts ends it.
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

/** Nobody is there to read it when the connection is gone; a client that only stopped sending gets the answer. */
function clientGone(cause: unknown): RegistryError {
  return new RegistryError('SIZE_INVALID', {
    message: 'the body ended before all of it had arrived',
    closeConnection: true,
    cause,
  })
}

/** The whole body in memory. 413 with `code` beyond `bytesMax`, of which no more than one chunk is read. */
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
