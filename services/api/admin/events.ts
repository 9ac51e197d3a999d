// GET /api/v1/events: the region's event log, as pages of JSON or as Server-Sent Events.
//
//   ?after=<position>      go on behind it; a push's Portolan-Position will do. Without: the oldest event there is, and for
//                          a stream, what comes from now on (Last-Event-ID counts as `after`)
//   &types=a,b             event types, in full or by their last part: push, tag.set
//   &repository=team/app   one repository, or with `*` at the end all that begin so
//   &limit=1..1000         of a page
//
// A caller sees events of repositories that it may pull. Who did it and through what request (`actor`, `request`) is for
// admins and for the account itself; others get the event without. A page looks at a bounded number of rows and bytes, so
// it may hold fewer than `limit`; its `next` moves on even when it is empty. An event of more than 128 KiB comes without
// its `references` and says so by `abridged`. A position whose events were trimmed is 410 with the oldest that is left;
// that of a write which is not numbered yet is 503; one that was never given is 400.

import type { ServerResponse } from 'node:http'
import { maySeeActor } from '#shared/auth/access.ts'
import { networkOf } from '#shared/auth/client-network.ts'
import {
  type LoggedEvent,
  type LogPosition,
  logBounds,
  positionOfOutbox,
  readEvents,
} from '#shared/db/event-log.ts'
import { RegistryError } from '#shared/errors.ts'
import { toCloudEvent, withoutProvenance } from '#shared/events/cloud-event.ts'
import { TYPE_PREFIX } from '#shared/events/event-types.ts'
import { formatPosition, parsePosition } from '#shared/events/position.ts'
import { parseQuery, type Query } from '#shared/oci/query.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { callerMayPull } from '../authorize.ts'
import type { Edge } from '../edge.ts'
import type { Audience } from '../event-frames.ts'
import { type Exchange, isHead, sendJson, writeHead } from '../exchange.ts'

const LIMIT = 100
const LIMIT_MAX = 1_000
/** Rows a page looks at, whatever the filter leaves of them. */
const SCAN_MAX = 1_000
const HEARTBEAT_MS = 15_000
/** A stream ends after this; its reader comes back with Last-Event-ID and rights that were looked at again. */
const STREAM_MS_MAX = 3_600_000
/** For what was written before that to be taken. */
const ENDING_MS_MAX = 10_000
/** Not yet taken by a reader; beyond it the stream is cut and the reader comes back for the rest. */
const UNSENT_BYTES_MAX = 1024 * 1024

export async function events(exchange: Exchange, path: { query: string }, edge: Edge): Promise<void> {
  const query = parseQuery(path.query)
  const wanted = filterOf(exchange, query)
  const accept = exchange.request.headers.accept ?? ''
  if (accept.includes('text/event-stream') && !isHead(exchange))
    return stream(exchange, { query, wanted, edge })
  const limit = limitOf(query)
  const after = await startOf(exchange, query.get('after'), 'oldest')
  const rows = await pageAfter(exchange, { after, limit: SCAN_MAX })
  const found: LoggedEvent[] = []
  let next: LogPosition = after
  for (const row of rows) {
    next = row
    if (wanted(row)) found.push(row)
    if (found.length === limit) break
  }
  const origin = exchange.region.name
  const audience = audienceOf(exchange)
  sendJson(exchange, {
    events: found.map((event) => {
      const full = toCloudEvent(origin, event)
      return audience(event) === 'full' ? full : withoutProvenance(full)
    }),
    next: formatPosition({ origin, epoch: next.epoch, pos: next.pos }),
  })
}

function audienceOf({ edge, identity }: Exchange): (event: LoggedEvent) => Audience {
  const { auth } = edge
  return ({ actor }) => (auth === undefined || maySeeActor(auth.policy, identity, actor) ? 'full' : 'plain')
}

function filterOf(exchange: Exchange, query: Query): (event: LoggedEvent) => boolean {
  const mayPull = callerMayPull(exchange)
  const types = (query.get('types') ?? '')
    .split(',')
    .filter((type) => type !== '')
    .map((type) => (type.startsWith(TYPE_PREFIX) ? type : `${TYPE_PREFIX}${type}`))
  if (types.length > 50) throw new RegistryError('REQUEST_INVALID', { message: 'at most 50 types' })
  const fits = (type: string) =>
    types.length === 0 ||
    types.some(
      (wanted) =>
        type === wanted || (/^\.v[0-9]+$/.test(type.slice(wanted.length)) && type.startsWith(wanted)),
    )
  const repository = query.get('repository')
  const inRepository = (name: string) =>
    repository === undefined ||
    (repository.endsWith('*') ? name.startsWith(repository.slice(0, -1)) : name === repository)
  return (event) =>
    // Settings are for other regions: they hold secrets.
    !event.type.startsWith(`${TYPE_PREFIX}setting.`) &&
    fits(event.type) &&
    inRepository(event.repository) &&
    mayPull(event.repository as RepositoryName)
}

function limitOf(query: Query): number {
  const text = query.get('limit')
  if (text === undefined) return LIMIT
  const limit = Number(text)
  if (!/^[0-9]{1,4}$/.test(text) || limit < 1 || limit > LIMIT_MAX) {
    throw new RegistryError('REQUEST_INVALID', { message: `limit is a number from 1 to ${LIMIT_MAX}` })
  }
  return limit
}

/** Where reading begins. 410 when that is no longer there. */
async function startOf(
  exchange: Exchange,
  text: string | undefined,
  otherwise: 'oldest' | 'head',
): Promise<LogPosition> {
  const { region } = exchange
  const bounds = await logBounds(region.reads)
  if (text === undefined) return bounds[otherwise]
  const parsed = parsePosition(text)
  if (parsed === undefined || parsed.origin !== region.name) {
    throw new RegistryError('REQUEST_INVALID', {
      message: `after is no position of this region: ${region.name}:<epoch>:<number>`,
    })
  }
  const after = 'pos' in parsed ? parsed : await positionOfOutbox(region.reads, parsed)
  if (after === 'waiting') {
    throw new RegistryError('UNAVAILABLE', {
      message: 'this write is not in the log yet',
      headers: { 'Retry-After': '1' },
    })
  }
  // A write's place may be later than the bounds: they were read before it.
  if (after === 'never' || ('pos' in parsed && isBefore(bounds.head, parsed))) {
    throw new RegistryError('REQUEST_INVALID', { message: 'after lies beyond the end of the log' })
  }
  if (after === 'gone' || isBefore(after, bounds.oldest)) {
    throw gone(exchange, bounds.oldest)
  }
  return after
}

/** @throws RegistryError POSITION_GONE when the trimming overtook the reader: what is left would leave a hole */
async function pageAfter(
  exchange: Exchange,
  options: { after: LogPosition; limit: number },
): Promise<LoggedEvent[]> {
  const { db } = exchange.region
  const rows = await readEvents(db, options)
  // Read after the rows: what was trimmed before they were read shows here.
  const { oldest } = await logBounds(db)
  if (isBefore(options.after, oldest)) throw gone(exchange, oldest)
  return rows
}

function gone({ region }: Exchange, oldest: LogPosition): RegistryError {
  return new RegistryError('POSITION_GONE', {
    details: [{ oldest: formatPosition({ origin: region.name, ...oldest }) }],
  })
}

function isBefore(one: LogPosition, other: LogPosition): boolean {
  return one.epoch < other.epoch || (one.epoch === other.epoch && one.pos < other.pos)
}

/**
 * Runs for as long as the stream is open. What it holds is held by this scope and taken before the first await, so a
 * reader that leaves at any moment leaves nothing behind. 429 beyond the bounds of streams.ts.
 */
async function stream(
  exchange: Exchange,
  options: { query: Query; wanted: (event: LoggedEvent) => boolean; edge: Edge },
): Promise<void> {
  const { query, wanted, edge } = options
  const { request, response } = exchange
  const closed = closeOf(response)
  using _place = edge.streams.take(networkOf(exchange.remoteAddress))
  const lastEventId = request.headers['last-event-id']
  const text = (typeof lastEventId === 'string' ? lastEventId : undefined) ?? query.get('after')
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
    // What it misses it asks for by Last-Event-ID; until then it costs nothing.
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
  // What the tail brings while we are behind is read again here, so that nothing is kept for a slow reader.
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
    return pageAfter(exchange, { after: at, limit: LIMIT_MAX })
  }
}

/** Resolves when the answer is out or its reader gone. */
function closeOf(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    if (response.destroyed) resolve()
    else response.once('close', resolve)
  })
}

/** Ends a stream whose head may not be written yet; a reader that takes nothing is cut by the drain. */
function endStream(response: ServerResponse): void {
  if (response.headersSent) response.end()
  else response.destroy()
}

function streamTimers(response: ServerResponse): Disposable {
  const beat = setInterval(() => {
    if (!response.writableNeedDrain && !response.writableEnded) response.write(': still here\n\n')
  }, HEARTBEAT_MS)
  const end = setTimeout(() => response.end(), STREAM_MS_MAX)
  // A reader that takes nothing never lets the end through.
  const cut = setTimeout(() => response.destroy(), STREAM_MS_MAX + ENDING_MS_MAX)
  return {
    [Symbol.dispose]() {
      clearInterval(beat)
      clearTimeout(end)
      clearTimeout(cut)
    },
  }
}

/** Resolves when the reader has taken what was written, or is gone. */
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
