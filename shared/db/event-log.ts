// The event log: outbox rows, numbered, in the order in which the registers they tell of were locked.
//
// One sequencer at a time moves rows, whoever gets the transaction-scoped lock: leadership and the move commit or
// vanish together, so a sequencer that dies or is frozen can neither lose nor repeat a number. The order of two events
// of one key is the order of their outbox ids, because each id was drawn under that key's row lock; rows of slow
// transactions simply come later.

import type { EventSource } from '#shared/events/cloud-event.ts'
import { maybe, one, type Queryable, statement } from './statement.ts'

/** A place in the log: after this event. */
export interface LogPosition {
  readonly epoch: number
  /** 0: before the first event of the epoch. */
  readonly pos: number
}

/** An event without its inline content. */
export type LoggedEvent = EventSource

const lock = statement<{ held: boolean }>(
  'sequencer-lock',
  `select pg_try_advisory_xact_lock(7065813, hashtext('sequencer')) as held`,
)

const heads = statement<never>(
  'make-event-heads',
  `insert into event_head (epoch, shard) select :epoch, shard from generate_series(-1, 7) as shard
   on conflict do nothing`,
)

const move = statement<{ moved: number }>(
  'move-outbox',
  `with taken as (
     delete from outbox where id in (select id from outbox order by id limit :limit) returning *
   ),
   placed as (
     select taken.*, row_number() over (order by id) as in_region,
       row_number() over (partition by shard order by id) as in_shard
     from taken
   ),
   counted as (
     select -1 as shard, count(*) as n from placed
     union all
     select shard, count(*) from placed group by shard
   ),
   head as (
     update event_head set seq = event_head.seq + counted.n
     from counted
     where event_head.epoch = :epoch and event_head.shard = counted.shard
     returning event_head.shard, event_head.seq - counted.n as base
   ),
   logged as (
     insert into event_log (epoch, pos, shard, seq, outbox_id, repository, type, subject, payload, content,
       traceparent, actor, request, instance, time)
     select :epoch, region.base + in_region, placed.shard, head.base + in_shard, placed.id, repository, type, subject,
       payload, content, traceparent, actor, request, instance, time
     from placed
     join head on head.shard = placed.shard
     join head as region on region.shard = -1
     order by in_region
     returning 1
   )
   select count(*) as moved from logged`,
)

const pending = statement<{ pending: boolean }>(
  'outbox-pending',
  `select exists (select from outbox) as pending`,
)

/** True when the outbox has rows. Cheap, takes no lock and no transaction id. */
export async function outboxPending(db: Queryable): Promise<boolean> {
  return (await one(db, pending)).pending
}

/** The numbering of an epoch begins: to be called once before `moveOutbox`. */
export async function beginEpoch(db: Queryable, epoch: number): Promise<void> {
  await db.rows(heads, { epoch })
}

/**
 * Moves up to `limit` rows; how many. Must run in a transaction of its own: the lock is its first statement, so that
 * what the move sees is newer than what the holder before it did. undefined: another sequencer is at it.
 */
export async function moveOutbox(
  transaction: Queryable,
  options: { epoch: number; limit: number },
): Promise<number | undefined> {
  if (!(await one(transaction, lock)).held) return undefined
  return (await one(transaction, move, options)).moved
}

const page = statement<LoggedEvent>(
  'read-events',
  `select epoch, pos, shard, seq, repository, type, subject, payload, traceparent, actor, request, instance, time
   from event_log where (epoch, pos) > (:epoch::int, :pos::bigint) order by epoch, pos limit :limit`,
)

/** Events after a position, in order. */
export async function readEvents(
  db: Queryable,
  options: { after: LogPosition; limit: number },
): Promise<LoggedEvent[]> {
  const { after, limit } = options
  return db.rows(page, { ...after, limit })
}

const bounds = statement<{
  epoch: number | null
  pos: number | null
  old_epoch: number | null
  old_pos: number | null
}>(
  'event-log-bounds',
  `select head.epoch, head.seq as pos, oldest.epoch as old_epoch, oldest.pos as old_pos
   from (select) as always
   left join lateral (select epoch, seq from event_head where shard = -1 order by epoch desc limit 1) as head on true
   left join lateral (select epoch, pos from event_log order by epoch, pos limit 1) as oldest on true`,
)

/** The last event's position, and the position before the oldest event that is left: reading may begin there. */
export async function logBounds(
  db: Queryable,
): Promise<{ head: LogPosition; oldest: LogPosition } | undefined> {
  const row = await one(db, bounds)
  if (row.epoch === null || row.pos === null) return undefined
  const head = { epoch: row.epoch, pos: row.pos }
  const oldest =
    row.old_epoch === null || row.old_pos === null ? head : { epoch: row.old_epoch, pos: row.old_pos - 1 }
  return { head, oldest }
}

const byOutbox = statement<{ pos: number }>(
  'position-of-outbox',
  `select pos from event_log where epoch = :epoch and outbox_id = :outbox_id`,
)

/** The position of what a write's `Portolan-Position` named; undefined while it is not in the log (or no more). */
export async function positionOfOutbox(
  db: Queryable,
  options: { epoch: number; outboxId: number },
): Promise<number | undefined> {
  const { epoch, outboxId } = options
  return (await maybe(db, byOutbox, { epoch, outbox_id: outboxId }))?.pos
}

const trim = statement<{ trimmed: number }>(
  'trim-events',
  `with gone as (
     delete from event_log where (epoch, pos) in (
       select epoch, pos from event_log
       where logged_at < clock_timestamp() - make_interval(secs => :retention_seconds)
       order by epoch, pos limit :limit)
     returning 1)
   select count(*) as trimmed from gone`,
)

/** Removes up to `limit` of the oldest events that are older than the retention; how many. */
export async function trimEvents(
  db: Queryable,
  options: { retentionSeconds: number; limit: number },
): Promise<number> {
  const { retentionSeconds, limit } = options
  return (await one(db, trim, { retention_seconds: retentionSeconds, limit })).trimmed
}
