// Where a reader of the event log stands and what comes behind it: for pages and for streams. A position whose events were
// trimmed is 410 with the oldest that is left; that of a write that is not numbered yet is 503; one that was never given
// is 400.

import { maySeeActor } from '#shared/auth/access.ts'
import {
  type LoggedEvent,
  type LogPosition,
  logBounds,
  positionOfOutbox,
  readEvents,
} from '#shared/db/event-log.ts'
import { RegistryError } from '#shared/errors.ts'
import { formatPosition, parsePosition } from '#shared/events/position.ts'
import type { Audience } from '../event-frames.ts'
import type { Exchange } from '../exchange.ts'

/** Who did it is for admins and for the account itself. */
export function audienceOf({ edge, identity }: Exchange): (event: LoggedEvent) => Audience {
  const { auth } = edge
  return ({ actor }) => (auth === undefined || maySeeActor(auth.policy, identity, actor) ? 'full' : 'plain')
}

/** Where reading begins. 410 when that is no longer there. */
export async function startOf(
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
export async function pageAfter(
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

export function isBefore(one: LogPosition, other: LogPosition): boolean {
  return one.epoch < other.epoch || (one.epoch === other.epoch && one.pos < other.pos)
}
