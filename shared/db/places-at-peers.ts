// How far this region has read the logs of other regions, and the events among them that it could not interpret yet.
// Readers of this region's log are in own-readers.ts and peer-readers.ts.
//
// The table is `peer_cursor`. It keeps that name because a release and the previous one run side by side on one schema.

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

/** Returns this region's position in a shard of an origin's log, or the beginning if it has taken nothing yet. */
export async function placeAtPeer(db: Queryable, { origin, shard }: LogShard): Promise<ShardPosition> {
  return { shard, ...((await maybe(db, read, { origin, shard })) ?? { epoch: 1, seq: 0 }) }
}

/** The same, locked until the transaction ends, so that only one process at a time applies events of a shard. */
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

/** Stores how far an epoch was applied when the cursor leaves it. Deaths include this for ever. */
export async function keepPeerEpoch(transaction: Queryable, at: EventId): Promise<void> {
  if (at.seq > 0) await transaction.rows(keepEpoch, { ...at })
}

const park = statement<never>(
  'park-event',
  `insert into parked_event (origin, epoch, shard, seq, type, event, reason)
   values (:origin, :epoch, :shard, :seq, :type, :event::jsonb, :reason)
   on conflict do nothing`,
)

/**
 * Stores an event that cannot be applied: its type is not known yet (no reason), or the reason says what is wrong with
 * it. Parking an event twice has no further effect.
 */
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

/** Returns parked events whose types are known now, in order. */
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

/** Takes a parked event. Returns false if another process took it. */
export async function unparkEvent(transaction: Queryable, id: EventId): Promise<boolean> {
  const { origin, epoch, shard, seq } = id
  return (await maybe(transaction, unpark, { origin, epoch, shard, seq })) !== undefined
}
