// Takes events of another region's log: applied, parked or dropped as repeated, with the cursor, in one transaction
// (rules R4 and R8). What events do is the applier's; that each happens once, in order and never silently not, is
// decided here. Merges do not depend on order, so a parked event may be applied years later.
//
// A batch that fails on its data is applied event by event, each under a savepoint: the bad one is parked with the
// reason, and the others count. A failure that is not the data's (a lock, a timeout, a connection) fails the batch.

import type { Database } from '#shared/db/connect.ts'
import { meansBadData } from '#shared/db/failures.ts'
import {
  keepPeerEpoch,
  lockPlaceAtPeer,
  movePlaceAtPeer,
  parkEvent,
  parkedEvents,
  unparkEvent,
} from '#shared/db/places-at-peers.ts'
import { withSavepoint } from '#shared/db/savepoint.ts'
import type { Queryable } from '#shared/db/statement.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { arrival, type EventId, parseEventId } from '#shared/events/event-id.ts'
import { BadEventError } from './parse-event.ts'

/** Each may be as large as a manifest with its references. */
const UNPARK_BATCH = 10

export interface TakenEvent {
  readonly event: CloudEvent
  readonly id: EventId
}

export interface Applier {
  /** Types in full that it knows. Events of others are parked. */
  readonly types: ReadonlySet<string>
  /**
   * Looks at events of known types before the transaction that applies them, and does what is harmless if that fails.
   * Returns the ids of those that say nothing sensible, with the reasons: they are parked.
   */
  prepare?(db: Queryable, events: readonly TakenEvent[]): Promise<ReadonlyMap<string, string>>
  /** Applies events of one shard, in order, within the transaction. */
  apply(transaction: Queryable, batch: { shard: number; events: readonly TakenEvent[] }): Promise<void>
}

/** One applier of several that know different types. Each gets its events in order. */
export function combined(appliers: readonly Applier[]): Applier {
  const of = (applier: Applier, events: readonly TakenEvent[]) =>
    events.filter(({ event }) => applier.types.has(event.type))
  return {
    types: new Set(appliers.flatMap(({ types }) => [...types])),
    async prepare(db, events) {
      const bad = await Promise.all(
        appliers.map((applier) => applier.prepare?.(db, of(applier, events)) ?? []),
      )
      return new Map(bad.flatMap((one) => [...one]))
    },
    async apply(transaction, { shard, events }) {
      for (const applier of appliers) {
        const own = of(applier, events)
        if (own.length > 0) await applier.apply(transaction, { shard, events: own })
      }
    },
  }
}

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
  options: { origin: string; shard: number; events: readonly CloudEvent[]; applier: Applier },
): Promise<Taken> {
  const { origin, shard, applier } = options
  const events = options.events.map((event) => {
    const id = parseEventId(event.id)
    if (id === undefined || id.origin !== origin || id.shard !== shard)
      throw new Error(`${event.id} is no event of shard ${shard} of ${origin}`)
    return { event, id }
  })
  const known = events.filter(({ event }) => applier.types.has(event.type))
  const bad = (await applier.prepare?.(db, known)) ?? new Map<string, string>()
  return db.transaction(async (transaction) => {
    let at = await lockPlaceAtPeer(transaction, { origin, shard })
    const taken: TakenEvent[] = []
    let parked = 0
    let repeated = 0
    for (const one of events) {
      const { event, id } = one
      const what = arrival(at, id)
      if (what === 'repeated') {
        repeated++
        continue
      }
      // A new epoch begins at 1; that nothing of the old one is left out is for whoever reads the log to know.
      if (what === 'gap' && !(id.epoch > at.epoch && id.seq === 1))
        throw new Error(`${event.id} leaves a hole`)
      if (id.epoch > at.epoch) await keepPeerEpoch(transaction, { origin, ...at })
      const reason = bad.get(event.id)
      if (applier.types.has(event.type) && reason === undefined) taken.push(one)
      else {
        await parkEvent(transaction, { id, type: event.type, event, reason: reason ?? null })
        parked++
      }
      at = id
    }
    if (taken.length + parked > 0) await movePlaceAtPeer(transaction, { origin, ...at })
    const refused = await applyAll(transaction, { shard, events: taken, applier })
    return { applied: taken.length - refused, parked: parked + refused, repeated }
  })
}

function isItsFault(thrown: unknown): boolean {
  return thrown instanceof BadEventError || meansBadData(thrown)
}

/** Applies the events together, or each by itself. How many were parked. */
async function applyAll(
  transaction: Queryable,
  { shard, events, applier }: { shard: number; events: readonly TakenEvent[]; applier: Applier },
): Promise<number> {
  if (events.length === 0) return 0
  const together = await withSavepoint(
    transaction,
    (inner) => applier.apply(inner, { shard, events }),
    isItsFault,
  )
  if (together === undefined) return 0
  let parked = 0
  for (const one of events) {
    const failed = await withSavepoint(
      transaction,
      (inner) => applier.apply(inner, { shard, events: [one] }),
      isItsFault,
    )
    if (failed === undefined) continue
    const { event, id } = one
    await parkEvent(transaction, { id, type: event.type, event, reason: failed.message })
    parked++
  }
  return parked
}

/** Applies parked events whose types are known by now, a bounded number; how many. To be called until it is 0. */
export async function applyParked(db: Database, applier: Applier): Promise<number> {
  const found = await parkedEvents(db, { types: [...applier.types], limit: UNPARK_BATCH })
  const events = found.map(({ event, origin, epoch, shard, seq }) => ({
    event: event as CloudEvent,
    id: { origin, epoch, shard, seq },
  }))
  const bad = (await applier.prepare?.(db, events)) ?? new Map<string, string>()
  return db.transaction(async (transaction) => {
    for (const one of events) {
      const { event, id } = one
      if (!(await unparkEvent(transaction, id))) continue
      const reason =
        bad.get(event.id) ??
        (
          await withSavepoint(
            transaction,
            (inner) => applier.apply(inner, { shard: id.shard, events: [one] }),
            isItsFault,
          )
        )?.message
      if (reason !== undefined) await parkEvent(transaction, { id, type: event.type, event, reason })
    }
    return events.length
  })
}

/**
 * Goes on behind events that the origin no longer has. They are missing here until the regions are compared, which the
 * caller tells.
 */
export async function skipTrimmed(db: Database, to: EventId): Promise<void> {
  await db.transaction(async (transaction) => {
    const at = await lockPlaceAtPeer(transaction, to)
    if (arrival(at, to) === 'repeated') return
    if (to.epoch > at.epoch) await keepPeerEpoch(transaction, { origin: to.origin, ...at })
    await movePlaceAtPeer(transaction, to)
  })
}
