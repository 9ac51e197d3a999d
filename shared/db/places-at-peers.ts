// How far this region came in the logs of other regions, and the events among them that it could not understand yet.
// Readers of this region's log are in own-readers.ts and peer-readers.ts.
//
// The table is `peer_cursor`. It keeps that name: a release and the one before it run side by side on one schema.

import type { EventId, ShardPosition } from '#shared/events/event-id.ts'
import { maybe, type Queryable, statement } from './statement.ts'

const read = statement<{ epoch: number; seq: number }>(
  'read-peer-cursor',
  `select epoch, seq from peer_cursor where origin = :origin and shard = :shard`,
)

const lockOrMake = statement<{ epoch: number; seq: number }>(
  'lock-peer-cursor',
  `insert into peer_cursor as c (origin, shard, epoch, seq) values (:origin, :shard, 1, 0)
   on conflict (origin, shard) do update set moved_at = c.moved_at
   returning epoch, seq`,
)

const move = statement<never>(
  'move-peer-cursor',
  `update peer_cursor set epoch = :epoch, seq = :seq, moved_at = clock_timestamp()
   where origin = :origin and shard = :shard`,
)

interface LogShard {
  readonly origin: string
  readonly shard: number
}

/** Where this region stands in a shard of an origin's log; the beginning when it took nothing yet. */
export async function placeAtPeer(db: Queryable, { origin, shard }: LogShard): Promise<ShardPosition> {
  return { shard, ...((await maybe(db, read, { origin, shard })) ?? { epoch: 1, seq: 0 }) }
}

/** The same, locked until the transaction ends: events of a shard are applied by one at a time. */
export async function lockPlaceAtPeer(
  transaction: Queryable,
  { origin, shard }: LogShard,
): Promise<ShardPosition> {
  const row = await maybe(transaction, lockOrMake, { origin, shard })
  return { shard, ...(row ?? { epoch: 1, seq: 0 }) }
}

export async function movePlaceAtPeer(transaction: Queryable, to: EventId): Promise<void> {
  await transaction.rows(move, { ...to })
}

const park = statement<never>(
  'park-event',
  `insert into parked_event (origin, epoch, shard, seq, type, event)
   values (:origin, :epoch, :shard, :seq, :type, :event::jsonb)
   on conflict do nothing`,
)

/** Keeps an event that cannot be applied yet. Twice is once. */
export async function parkEvent(
  transaction: Queryable,
  options: { id: EventId; type: string; event: unknown },
): Promise<void> {
  const { id, type, event } = options
  await transaction.rows(park, { ...id, type, event: JSON.stringify(event) })
}

export interface ParkedEvent extends EventId {
  readonly type: string
  readonly event: unknown
}

const parked = statement<ParkedEvent>(
  'parked-events',
  `select origin, epoch, shard, seq, type, event from parked_event
   where type = any (:types::text[]) order by origin, epoch, shard, seq limit :limit for update skip locked`,
)

/** Parked events of types that are known by now, in order, locked. */
export async function parkedEvents(
  transaction: Queryable,
  options: { types: readonly string[]; limit: number },
): Promise<ParkedEvent[]> {
  return transaction.rows(parked, options)
}

const unpark = statement<never>(
  'unpark-event',
  `delete from parked_event where origin = :origin and epoch = :epoch and shard = :shard and seq = :seq`,
)

export async function unparkEvent(transaction: Queryable, id: EventId): Promise<void> {
  const { origin, epoch, shard, seq } = id
  await transaction.rows(unpark, { origin, epoch, shard, seq })
}
