// Takes events of another region's log: applied, parked or dropped as repeated, with the cursor, in one transaction
// (rules R4 and R8). What an event does is the caller's; that each happens once, in order and never silently not, is
// decided here. Merges do not depend on order, so a parked event may be applied years later.

import type { Database } from '#shared/db/connect.ts'
import {
  lockPlaceAtPeer,
  movePlaceAtPeer,
  parkEvent,
  parkedEvents,
  unparkEvent,
} from '#shared/db/places-at-peers.ts'
import type { Queryable } from '#shared/db/statement.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { arrival, parseEventId } from '#shared/events/event-id.ts'

/** Each may be as large as a manifest with its references. */
const UNPARK_BATCH = 10

/** By type in full: what an event of it does. A type that is not here is parked. */
export type Appliers = Readonly<Record<string, (transaction: Queryable, event: CloudEvent) => Promise<void>>>

export interface Taken {
  readonly applied: number
  readonly parked: number
  readonly repeated: number
}

/**
 * Takes events of one shard, which come right after its cursor but for repetitions.
 * @throws Error on a hole: nothing of the batch has happened then
 */
export async function receiveEvents(
  db: Database,
  options: { origin: string; shard: number; events: readonly CloudEvent[]; appliers: Appliers },
): Promise<Taken> {
  const { origin, shard, events, appliers } = options
  return db.transaction(async (transaction) => {
    let at = await lockPlaceAtPeer(transaction, { origin, shard })
    let last: ReturnType<typeof parseEventId>
    let applied = 0
    let parked = 0
    let repeated = 0
    for (const event of events) {
      const id = parseEventId(event.id)
      if (id === undefined || id.origin !== origin || id.shard !== shard)
        throw new Error(`${event.id} is no event of shard ${shard} of ${origin}`)
      const what = arrival(at, id)
      if (what === 'repeated') {
        repeated++
        continue
      }
      // A new epoch begins at 1; that nothing of the old one is left out is for whoever reads the log to know.
      if (what === 'gap' && !(id.epoch > at.epoch && id.seq === 1))
        throw new Error(`${event.id} leaves a hole`)
      if (Object.hasOwn(appliers, event.type)) {
        await appliers[event.type]?.(transaction, event)
        applied++
      } else {
        await parkEvent(transaction, { id, type: event.type, event })
        parked++
      }
      at = id
      last = id
    }
    if (last !== undefined) await movePlaceAtPeer(transaction, last)
    return { applied, parked, repeated }
  })
}

/** Applies parked events whose types are known by now, a bounded number; how many. To be called until it is 0. */
export async function applyParked(db: Database, appliers: Appliers): Promise<number> {
  return db.transaction(async (transaction) => {
    const events = await parkedEvents(transaction, { types: Object.keys(appliers), limit: UNPARK_BATCH })
    for (const { event, ...id } of events) {
      await appliers[id.type]?.(transaction, event as CloudEvent)
      await unparkEvent(transaction, id)
    }
    return events.length
  })
}
