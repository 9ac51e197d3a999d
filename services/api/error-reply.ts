// Any thrown value -> the OCI error envelope (distribution-spec, "Error Codes"). The one place that renders errors,
// and the one that logs bugs.
//
// An answer that comes before the request's body was read closes the connection: keep-alive would make us read what
// nobody wants. A little of the body is still taken in first, because a client that is mid-write when the socket is
// reset loses the answer it was sent.

import { StoreError } from '#shared/blobs/blob-store.ts'
import { isPassing, isUnreachable } from '#shared/db/failures.ts'
import { ReaderUnavailableError } from '#shared/db/snapshot-reader.ts'
import { RegistryError, toError } from '#shared/errors.ts'
import { type Exchange, type Headers, registryHeaders, sendBytes } from './exchange.ts'

/** Body bytes taken in after an early answer, and for how long, before the socket is cut. */
const LINGER_BYTES_MAX = 256 * 1024
const LINGER_MS = 1_000
const RETRY_AFTER_SECONDS = '2'

/**
 * Answers with the error, or cuts the connection when an answer is under way: never a short body that looks whole.
 * Never throws: an answer that cannot even be written ends the connection and is in the log.
 */
export function replyError(exchange: Exchange, thrown: unknown): void {
  try {
    reply(exchange, thrown)
  } catch (failure) {
    exchange.region.log.error(
      { error: toError(failure), requestId: exchange.requestId },
      'an error could not be answered',
    )
    exchange.response.destroy()
  }
}

function reply(exchange: Exchange, thrown: unknown): void {
  const { request, response, region } = exchange
  const error = toRegistryError(thrown)
  exchange.errorCode = error.code
  if (error.code === 'UNKNOWN') {
    region.log.error({ error: toError(thrown), requestId: exchange.requestId }, 'request failed unexpectedly')
  } else if (error.code === 'UNAVAILABLE') {
    // That the database is away is told once (db/outage.ts); the request's own line has the code.
    if (!isUnreachable(thrown))
      region.log.warn(
        { error: toError(thrown), requestId: exchange.requestId },
        'request could not be served',
      )
  }
  if (response.destroyed) return
  if (response.headersSent) {
    response.destroy()
    return
  }
  const unread = !request.complete && hasBody(exchange)
  const headers: Headers = { ...registryHeaders(), 'Content-Type': 'application/json', ...error.headers }
  if (unread || error.closeConnection) headers.Connection = 'close'
  sendBytes(exchange, { status: error.status, headers, body: envelope(error) })
  if (unread) linger(exchange)
}

function envelope(error: RegistryError): Buffer {
  const { code, message, details } = error
  const errors =
    details.length === 0 ? [{ code, message }] : details.map((detail) => ({ code, message, detail }))
  return Buffer.from(JSON.stringify({ errors }))
}

function hasBody(exchange: Exchange): boolean {
  const { headers } = exchange.request
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

function linger(exchange: Exchange): void {
  const { request } = exchange
  let taken = 0
  const cut = () => request.destroy()
  const timer = setTimeout(cut, LINGER_MS)
  timer.unref()
  request.on('data', (chunk: Buffer) => {
    taken += chunk.length
    // Not cut yet: a reset would overtake the answer on its way to a client that is still writing.
    if (taken > LINGER_BYTES_MAX) request.pause()
  })
  request.on('close', () => clearTimeout(timer))
  request.on('error', cut)
  request.resume()
}

/** Operating errors become UNAVAILABLE with Retry-After; what is not expected at all is UNKNOWN. */
export function toRegistryError(thrown: unknown): RegistryError {
  if (thrown instanceof RegistryError) return thrown
  const headers = { 'Retry-After': RETRY_AFTER_SECONDS }
  if (thrown instanceof StoreError && thrown.kind === 'lost') {
    return new RegistryError('BLOB_UPLOAD_UNKNOWN', {
      cause: thrown,
      message: 'the upload has to begin again',
    })
  }
  if (thrown instanceof StoreError) {
    const message = thrown.kind === 'full' ? 'the store is full: pulls go on, uploads wait' : undefined
    return new RegistryError('UNAVAILABLE', { cause: thrown, headers, ...(message && { message }) })
  }
  if (thrown instanceof ReaderUnavailableError || isPassing(thrown)) {
    return new RegistryError('UNAVAILABLE', { cause: thrown, headers })
  }
  return new RegistryError('UNKNOWN', { cause: thrown })
}
