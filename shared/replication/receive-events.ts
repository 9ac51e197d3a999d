// Takes events of another region's log. In one transaction, each event is applied, parked, or dropped as a duplicate,
// and the cursor is moved (rules R4 and R8). The applier defines what an event does. This file ensures that each event
// takes effect once and in order, and that none is skipped silently. Merges do not depend on order, so a parked event
// may be applied years later.
//
// If a batch fails because of its data, its events are applied one by one, each under a savepoint. The bad event is
// parked with the reason, and the others are applied. Any other failure (a lock, a timeout, a connection) fails the
// batch.

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

/** Each event may be as large as a manifest with its references. */
const UNPARK_BATCH = 10

export interface TakenEvent {
  readonly event: CloudEvent
  readonly id: EventId
}

export interface Applier {
  /** The full types that it supports. Events of other types are parked. */
  readonly types: ReadonlySet<string>
  /**
   * Checks events of supported types before the transaction that applies them. Its effects must be harmless if that
   * transaction fails. Returns the ids of invalid events with the reasons; these events are parked.
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
 * Takes events of one shard. Apart from duplicates, they must directly follow its cursor.
 * @throws Error on a gap; nothing of the batch is applied then
 */
export async function receiveEvents(
  db: Database,
  options: { origin: string; shard: number; events: readonly CloudEvent[]; applier: Applier },
): Promise<Taken> {
  const { origin, shard, applier } = options
  const events = options.events.map((event) => {
    const id = parseEventId(event.id)
    if (id === undefined || id.origin !== origin || id.shard !== shard)
      throw new Error(`${event.id} is not an event of shard ${shard} of ${origin}`)
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
      // A new epoch starts at 1. Whether events of the old one are missing is for the log's reader to ensure.
      if (what === 'gap' && !(id.epoch > at.epoch && id.seq === 1))
        throw new Error(`${event.id} leaves a gap`)
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

/** Applies the events together or, if that fails, one by one. Returns how many were parked. */
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

/** Applies a bounded number of parked events whose types are known by now. Returns how many; call it until it is 0. */
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
