// The event log as Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html). A stream first
// sends the events that the reader missed, then new ones. It ends after an hour; the reader reconnects with
// Last-Event-ID.

import type { ServerResponse } from 'node:http'
import { networkOf } from '#shared/auth/client-network.ts'
import type { LoggedEvent } from '#shared/db/event-log.ts'
import { type Exchange, writeHead } from '../exchange.ts'
import { audienceOf, isBefore, pageAfter, startOf } from './event-pages.ts'

/** Number of events read at once while a stream catches up. */
const PAGE = 1_000
const HEARTBEAT_MS = 15_000
/** A stream ends after this time. The reader reconnects with Last-Event-ID, and its rights are checked again. */
const STREAM_MS_MAX = 3_600_000
/** Time for the reader to receive what was written before the end. */
const ENDING_MS_MAX = 10_000
/**
 * Bytes that a reader has not received yet. Above this bound the stream is cut, and the reader reconnects for the rest.
 */
const UNSENT_BYTES_MAX = 1024 * 1024

/**
 * Runs as long as the stream is open. This scope owns all resources and acquires them before the first await, so a
 * reader that disconnects at any moment leaves nothing behind. Throws 429 above the bounds of streams.ts.
 */
export async function streamEvents(
  exchange: Exchange,
  options: { after: string | undefined; wanted: (event: LoggedEvent) => boolean },
): Promise<void> {
  const { wanted } = options
  const { request, response, edge } = exchange
  const closed = closeOf(response)
  using _place = edge.streams.take(networkOf(exchange.remoteAddress))
  const lastEventId = request.headers['last-event-id']
  const text = (typeof lastEventId === 'string' ? lastEventId : undefined) ?? options.after
  const audience = audienceOf(exchange)
  let at = await startOf(exchange, text, 'head')
  if (response.destroyed) return
  let caughtUp = false
  let missed = true
  const send = (events: readonly LoggedEvent[]): void => {
    if (response.writableEnded) return
    for (const event of events) {
      if (!isBefore(at, event)) continue
      at = event
      if (wanted(event)) response.write(edge.tail.frames.frame(event, audience(event)))
    }
    // The reader requests the missed events with Last-Event-ID. Until then it uses no resources.
    if (response.writableLength > UNSENT_BYTES_MAX) response.destroy()
  }
  using following = edge.tail.listen({
    onEvents(events) {
      if (caughtUp) send(events)
      else missed = true
    },
    onEnd: () => endStream(response),
  })
  await following.ready
  if (response.destroyed) return
  using _timers = streamTimers(response)
  writeHead(exchange, 200, {
    'Content-Type': 'text/event-stream',
    'Cache-Control': 'no-store',
    'X-Accel-Buffering': 'no',
    'X-Content-Type-Options': 'nosniff',
  })
  response.write(': hello\n\n')
  const isOpen = () => !response.destroyed && !response.writableEnded
  // Events that the tail delivers during catch-up are read again here, so nothing is buffered for a slow reader.
  while (missed && isOpen()) {
    missed = false
    for (let page = await nextPage(); page.length > 0 && isOpen(); page = await nextPage()) {
      send(page)
      if (response.writableNeedDrain) await drained(exchange)
    }
  }
  caughtUp = true
  await closed

  function nextPage(): Promise<LoggedEvent[]> {
    return pageAfter(exchange, { after: at, limit: PAGE })
  }
}

/** Resolves when the response has been sent or the reader has disconnected. */
function closeOf(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    if (response.destroyed) resolve()
    else response.once('close', resolve)
  })
}

/** Ends a stream whose head may not be written yet. The drain cuts a reader that does not receive. */
function endStream(response: ServerResponse): void {
  if (response.headersSent) response.end()
  else response.destroy()
}

function streamTimers(response: ServerResponse): Disposable {
  const beat = setInterval(() => {
    if (!response.writableNeedDrain && !response.writableEnded) response.write(': still here\n\n')
  }, HEARTBEAT_MS)
  const end = setTimeout(() => response.end(), STREAM_MS_MAX)
  // If a reader does not receive, the end of the stream never reaches it.
  const cut = setTimeout(() => response.destroy(), STREAM_MS_MAX + ENDING_MS_MAX)
  return {
    [Symbol.dispose]() {
      clearInterval(beat)
      clearTimeout(end)
      clearTimeout(cut)
    },
  }
}

/** Resolves when the reader has received what was written, or has disconnected. */
function drained({ response }: Exchange): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done)
      response.off('close', done)
      resolve()
    }
    response.once('drain', done)
    response.once('close', done)
  })
}
