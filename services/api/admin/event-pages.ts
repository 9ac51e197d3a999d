// Positions in the event log and the events after them, for pages and for streams. A position whose events were trimmed
// returns 410 with the oldest position that is left. The position of a write that has no number yet returns 503. A
// position that was never assigned returns 400.

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

/** Only admins and the account itself may see who caused an event. */
export function audienceOf({ edge, identity }: Exchange): (event: LoggedEvent) => Audience {
  const { auth } = edge
  return ({ actor }) => (auth === undefined || maySeeActor(auth.policy, identity, actor) ? 'full' : 'plain')
}

/** The position where reading begins. Throws 410 if the events after it were trimmed. */
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
  // The position of a write may be later than the bounds, because they were read before it.
  if (after === 'never' || ('pos' in parsed && isBefore(bounds.head, parsed))) {
    throw new RegistryError('REQUEST_INVALID', { message: 'after lies beyond the end of the log' })
  }
  if (after === 'gone' || isBefore(after, bounds.oldest)) {
    throw gone(exchange, bounds.oldest)
  }
  return after
}

/** @throws RegistryError POSITION_GONE if trimming overtook the reader: the remaining events would have a gap */
export async function pageAfter(
  exchange: Exchange,
  options: { after: LogPosition; limit: number },
): Promise<LoggedEvent[]> {
  const { db } = exchange.region
  const rows = await readEvents(db, options)
  // Read after the rows, so that it covers every trim that happened before the rows were read.
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
