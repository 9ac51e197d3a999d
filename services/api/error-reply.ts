// Turns any thrown value into the OCI error envelope (distribution-spec, "Error Codes"). This is the only place that
// renders errors and the only one that logs bugs.
//
// A client that disconnects is not an error: failures that its disconnect causes are not logged as failures, and its
// request line says 499. A bug that occurs at the same time is still logged as a bug.

import { StoreError } from '#shared/blobs/blob-store.ts'
import { isPassing, isUnreachable } from '#shared/db/failures.ts'
import { ReaderUnavailableError } from '#shared/db/snapshot-reader.ts'
import { RegistryError, toError } from '#shared/errors.ts'
import { type Exchange, type Headers, registryHeaders, sendBytes } from './exchange.ts'
import { SinkClosedError } from './writable-sink.ts'

const CAUSES_MAX = 8
const RETRY_AFTER_SECONDS = '2'

/**
 * Replies with the error, or cuts the connection if a reply is in progress. A short body never looks complete. Never
 * throws: if the reply cannot be written, the connection is closed and the failure is logged.
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
  const { response, region } = exchange
  const error = toRegistryError(thrown)
  const gone = response.destroyed && !response.writableFinished
  const logged = !(gone && isByClientGone(thrown))
  if (logged && error.code === 'UNKNOWN') {
    region.log.error({ error: toError(thrown), requestId: exchange.requestId }, 'request failed unexpectedly')
  } else if (logged && error.code === 'UNAVAILABLE' && !isUnreachable(thrown)) {
    // A database outage is logged once (db/outage.ts). The line of the request contains the code.
    region.log.warn({ error: toError(thrown), requestId: exchange.requestId }, 'request could not be served')
  }
  // The reply was already sent, for example because the body became malformed.
  if (gone || response.writableEnded) return
  exchange.errorCode = error.code
  if (response.headersSent) {
    response.destroy()
    return
  }
  const headers: Headers = { ...registryHeaders(), 'Content-Type': 'application/json', ...error.headers }
  if (error.closeConnection) headers.Connection = 'close'
  sendBytes(exchange, { status: error.status, headers, body: envelope(error) })
}

/** True if a disconnect of the client is anywhere in the chain of causes. */
function isByClientGone(thrown: unknown): boolean {
  let error = thrown
  for (let depth = 0; depth < CAUSES_MAX && error instanceof Error; depth++) {
    if (error instanceof SinkClosedError || error.name === 'AbortError') return true
    error = error.cause
  }
  return false
}

function envelope(error: RegistryError): Buffer {
  const { code, message, details } = error
  const errors =
    details.length === 0 ? [{ code, message }] : details.map((detail) => ({ code, message, detail }))
  return Buffer.from(JSON.stringify({ errors }))
}

/** Operational errors become UNAVAILABLE with Retry-After. Unexpected errors become UNKNOWN. */
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
