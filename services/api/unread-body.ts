// Handles request bodies that are not read. A reply that leaves a body unread has `Connection: close`: with keep-alive
// the process would have to read the rest, which may be gigabytes. A bounded amount is still read, because a client
// whose socket is reset while it writes loses the reply.

import type { IncomingMessage, ServerResponse } from 'node:http'

/** Maximum number of body bytes read after an early reply, and the time limit, before the socket is cut. */
const LINGER_BYTES_MAX = 256 * 1024
const LINGER_MS = 1_000

/** True while part of the body has not arrived. Always false for requests without a body. */
export function bodyIsUnread(request: IncomingMessage): boolean {
  if (request.complete) return false
  const { headers } = request
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/**
 * Reads at most LINGER_BYTES_MAX of the body and cuts the connection LINGER_MS after the reply is complete. Until then
 * it cuts nothing, because replies to earlier requests may still be in transit on the same connection.
 */
export function linger(request: IncomingMessage, response: ServerResponse): void {
  let taken = 0
  const cut = () => request.destroy()
  // If a handler reads the body, it owns the bytes, and only the time is bounded here.
  const isRead = request.listenerCount('data') > 0
  const take = (chunk: Buffer) => {
    taken += chunk.length
    // Not cut yet: a reset could overtake the reply to a client that is still writing.
    if (taken > LINGER_BYTES_MAX) request.pause()
  }
  request.on('error', cut)
  const afterwards = () => {
    const timer = setTimeout(cut, LINGER_MS)
    timer.unref()
    request.once('close', () => clearTimeout(timer))
  }
  if (response.writableFinished) afterwards()
  else response.once('finish', afterwards)
  if (!isRead) request.on('data', take).resume()
}
