// Request bodies that nobody reads. An answer that leaves one unread says `Connection: close`: keep-alive would make the
// process read what nobody wants, gigabytes of it if the client likes. A little is still taken in, because a client that
// is mid-write when the socket is reset loses the answer it was sent.

import type { IncomingMessage, ServerResponse } from 'node:http'

/** Body bytes taken in after an early answer, and for how long, before the socket is cut. */
const LINGER_BYTES_MAX = 256 * 1024
const LINGER_MS = 1_000

/** True while some of the request's body has not arrived: for requests without a body, always false. */
export function bodyIsUnread(request: IncomingMessage): boolean {
  if (request.complete) return false
  const { headers } = request
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/**
 * Takes in at most LINGER_BYTES_MAX of the body and cuts the connection LINGER_MS after the answer is out. Until then it
 * cuts nothing: answers to earlier requests may still be leaving on the same connection.
 */
export function linger(request: IncomingMessage, response: ServerResponse): void {
  let taken = 0
  const cut = () => request.destroy()
  // Where a handler reads the body, the bytes are its own and only the time is bounded here.
  const isRead = request.listenerCount('data') > 0
  const take = (chunk: Buffer) => {
    taken += chunk.length
    // Not cut yet: a reset would overtake the answer on its way to a client that is still writing.
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
