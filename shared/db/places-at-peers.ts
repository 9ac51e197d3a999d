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

const keepEpoch = statement<never>(
  'keep-peer-epoch',
  `insert into peer_epoch as p (origin, shard, epoch, seq) values (:origin, :shard, :epoch, :seq)
   on conflict (origin, shard, epoch) do update set seq = greatest(p.seq, excluded.seq)`,
)

/** Remembers how far an epoch was applied that the cursor leaves: deaths tell it for ever. */
export async function keepPeerEpoch(transaction: Queryable, at: EventId): Promise<void> {
  if (at.seq > 0) await transaction.rows(keepEpoch, { ...at })
}

const park = statement<never>(
  'park-event',
  `insert into parked_event (origin, epoch, shard, seq, type, event, reason)
   values (:origin, :epoch, :shard, :seq, :type, :event::jsonb, :reason)
   on conflict do nothing`,
)

/** Keeps an event that cannot be applied: its type is not known yet (no reason), or what is wrong with it. Twice is once. */
export async function parkEvent(
  transaction: Queryable,
  options: { id: EventId; type: string; event: unknown; reason: string | null },
): Promise<void> {
  const { id, type, event, reason } = options
  await transaction.rows(park, { ...id, type, event: JSON.stringify(event), reason })
}

export interface ParkedEvent extends EventId {
  readonly type: string
  readonly event: unknown
}

const parked = statement<ParkedEvent>(
  'parked-events',
  `select origin, epoch, shard, seq, type, event from parked_event
   where type = any (:types::text[]) and reason is null order by origin, epoch, shard, seq limit :limit`,
)

/** Parked events of types that are known by now, in order. */
export async function parkedEvents(
  db: Queryable,
  options: { types: readonly string[]; limit: number },
): Promise<ParkedEvent[]> {
  return db.rows(parked, options)
}

const unpark = statement<{ taken: number }>(
  'unpark-event',
  `delete from parked_event where origin = :origin and epoch = :epoch and shard = :shard and seq = :seq
   returning 1 as taken`,
)

/** Takes a parked event; false when another has. */
export async function unparkEvent(transaction: Queryable, id: EventId): Promise<boolean> {
  const { origin, epoch, shard, seq } = id
  return (await maybe(transaction, unpark, { origin, epoch, shard, seq })) !== undefined
}
