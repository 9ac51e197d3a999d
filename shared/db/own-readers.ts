// How far this region's own readers have read this region's log: the planner of webhooks, the publisher to Kafka.
// Readers in other regions are in peer-readers.ts. This region as a reader of other logs is in places-at-peers.ts.
//
// The table is `event_cursor`. It keeps that name because a release and the previous one run side by side on one
// schema.

import type { LogPosition } from './event-log.ts'
import { maybe, type Queryable, statement } from './statement.ts'

const read = statement<LogPosition>(
  'read-cursor',
  `select epoch, pos from event_cursor where reader = :reader`,
)

/** Returns undefined before the first move. */
export async function ownReaderPosition(db: Queryable, reader: string): Promise<LogPosition | undefined> {
  return maybe(db, read, { reader })
}

const move = statement<never>(
  'move-cursor',
  `insert into event_cursor (reader, epoch, pos) values (:reader, :epoch, :pos)
   on conflict (reader) do update set epoch = excluded.epoch, pos = excluded.pos, moved_at = clock_timestamp()
   where (event_cursor.epoch, event_cursor.pos) < (excluded.epoch, excluded.pos)`,
)

/** Moves forward only: a reader that was frozen and wakes cannot move the position back. */
export async function moveOwnReader(db: Queryable, reader: string, to: LogPosition): Promise<void> {
  await db.rows(move, { reader, epoch: to.epoch, pos: to.pos })
}

const behind = statement<{ reader: string; behind: number }>(
  'readers-behind',
  `select reader, coalesce((
     select sum(head.seq - case when head.epoch = event_cursor.epoch then event_cursor.pos else 0 end)
     from event_head as head
     where head.shard = -1 and head.epoch >= event_cursor.epoch), 0)::bigint as behind
   from event_cursor order by reader`,
)

/** Returns the number of events that each reader has not read yet. */
export async function ownReadersBehind(db: Queryable): Promise<{ reader: string; behind: number }[]> {
  return db.rows(behind)
}
