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
  `insert into event_head (epoch, shard) select region.epoch, shard from region cross join generate_series(-1, 7) as shard
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
     where event_head.epoch = (select epoch from region) and event_head.shard = counted.shard
     returning event_head.epoch, event_head.shard, event_head.seq - counted.n as base
   ),
   logged as (
     insert into event_log (epoch, pos, shard, seq, outbox_id, repository, type, subject, payload, content,
       traceparent, actor, request, instance, time)
     select head.epoch, region.base + in_region, placed.shard, head.base + in_shard, placed.id, repository, type, subject,
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
  // By the index: what was moved is dead in the table until it is vacuumed, and the index remembers what it saw dead.
  `select (select id from outbox order by id limit 1) is not null as pending`,
)

/** True when the outbox has rows. Cheap, takes no lock and no transaction id. */
export async function outboxPending(db: Queryable): Promise<boolean> {
  return (await one(db, pending)).pending
}

/** The numbering of the region's epoch begins: to be called once before `moveOutbox`, and when it was raised. */
export async function beginEpoch(db: Queryable): Promise<void> {
  await db.rows(heads)
}

/**
 * Moves up to `limit` rows; how many. Must run in a transaction of its own: the lock is its first statement, so that
 * what the move sees is newer than what the holder before it did. undefined: another sequencer is at it.
 */
export async function moveOutbox(
  transaction: Queryable,
  options: { limit: number },
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
  epoch: number
  pos: number
  old_epoch: number | null
  old_pos: number | null
}>(
  'event-log-bounds',
  `select coalesce(head.epoch, region.epoch) as epoch, coalesce(head.seq, 0) as pos,
     oldest.epoch as old_epoch, oldest.pos as old_pos
   from region
   left join lateral (select epoch, seq from event_head where shard = -1 order by epoch desc limit 1) as head on true
   left join lateral (select epoch, pos from event_log order by epoch, pos limit 1) as oldest on true`,
)

/** The last event's position, and the position before the oldest event that is left: reading may begin there. */
export async function logBounds(db: Queryable): Promise<{ head: LogPosition; oldest: LogPosition }> {
  const row = await one(db, bounds)
  const head = { epoch: row.epoch, pos: row.pos }
  const oldest =
    row.old_epoch === null || row.old_pos === null ? head : { epoch: row.old_epoch, pos: row.old_pos - 1 }
  return { head, oldest }
}

const byOutbox = statement<LogPosition>(
  'position-of-outbox',
  `select epoch, pos from event_log where epoch >= :epoch and outbox_id = :outbox_id order by epoch limit 1`,
)

/**
 * The position of what a write's `Portolan-Position` named; undefined while it is not in the log (or no more). Under a
 * later epoch, if that was raised before the write was numbered.
 */
export async function positionOfOutbox(
  db: Queryable,
  options: { epoch: number; outboxId: number },
): Promise<LogPosition | undefined> {
  const { epoch, outboxId } = options
  return maybe(db, byOutbox, { epoch, outbox_id: outboxId })
}

const trim = statement<{ trimmed: number }>(
  'trim-events',
  `with awaited as (
     select epoch, pos from event_cursor
     where moved_at > clock_timestamp() - make_interval(secs => :reader_seconds)
     order by epoch, pos limit 1
   ),
   doomed as (
     select epoch, pos, shard, seq from event_log
     where logged_at < clock_timestamp() - make_interval(secs => :retention_seconds)
       and ((epoch, pos) <= (select epoch, pos from awaited) or not exists (select from awaited))
     order by epoch, pos limit :limit
   ),
   needed as (
     select epoch, pos from doomed
     where exists (
       select from log_reader as slow
       where slow.shard = doomed.shard and (slow.epoch, slow.seq) < (doomed.epoch, doomed.seq)
         and slow.seen_at > clock_timestamp() - make_interval(secs => :reader_seconds))
     order by epoch, pos limit 1
   ),
   -- Only ever a beginning: what is left has no holes.
   gone as (
     delete from event_log where (epoch, pos) in (
       select epoch, pos from doomed
       where (epoch, pos) < (select epoch, pos from needed) or not exists (select from needed))
     returning 1)
   select count(*) as trimmed from gone`,
)

/**
 * Removes up to `limit` of the oldest events that are older than the retention and that every reader has passed;
 * a reader that was not heard of for `readerSeconds` is waited for no longer. How many.
 */
export async function trimEvents(
  db: Queryable,
  options: { retentionSeconds: number; readerSeconds: number; limit: number },
): Promise<number> {
  const { retentionSeconds, readerSeconds, limit } = options
  const parameters = { retention_seconds: retentionSeconds, reader_seconds: readerSeconds, limit }
  return (await one(db, trim, parameters)).trimmed
}

const at = statement<{ type: string; subject: string; time: Date }>(
  'event-at',
  `select type, subject, time from event_log where epoch = :epoch and shard = :shard and seq = :seq`,
)

const headAt = statement<{ seq: number }>(
  'shard-head',
  `select seq from event_head where epoch = :epoch and shard = :shard`,
)

/** What stands at a place of the log: the event, 'trimmed' when it was kept once, 'never' when it was never given. */
export async function eventAt(
  db: Queryable,
  place: { epoch: number; shard: number; seq: number },
): Promise<{ type: string; subject: string; time: Date } | 'trimmed' | 'never'> {
  const { epoch, shard, seq } = place
  const found = await maybe(db, at, { epoch, shard, seq })
  if (found !== undefined) return found
  const head = await maybe(db, headAt, { epoch, shard })
  return head !== undefined && head.seq >= seq ? 'trimmed' : 'never'
}

const waitLock = statement<never>(
  'sequencer-wait',
  `select pg_advisory_xact_lock(7065813, hashtext('sequencer'))`,
)

const relog = statement<{ moved: number }>(
  'relog-events',
  `with placed as (
     select *, row_number() over (order by epoch, pos) as in_region,
       row_number() over (partition by event_log.shard order by epoch, pos) as in_shard
     from event_log where (epoch, pos) > (:epoch::int, :pos::bigint)
   ),
   counted as (
     select -1 as shard, count(*) as n from placed
     union all
     select shard, count(*) from placed group by shard
   ),
   head as (
     update event_head set seq = counted.n from counted
     where event_head.epoch = (select epoch from region) and event_head.shard = counted.shard
     returning 1
   ),
   logged as (
     insert into event_log (epoch, pos, shard, seq, outbox_id, repository, type, subject, payload, content,
       traceparent, actor, request, instance, time)
     select (select epoch from region), in_region, shard, in_shard, outbox_id, repository, type, subject,
       payload, content, traceparent, actor, request, instance, time
     from placed order by in_region
     returning 1
   )
   select count(*) as moved from logged cross join (select count(*) from head) as heads`,
)

/**
 * Numbers once more, under an epoch that was raised just now in this transaction, what the log holds after a position.
 * For a log that was restored: numbers it gave since then were given before, to other events. Nothing is numbered
 * beside it. How many.
 */
export async function relogEvents(transaction: Queryable, after: LogPosition): Promise<number> {
  await transaction.rows(heads)
  return (await one(transaction, relog, { epoch: after.epoch, pos: after.pos })).moved
}

/** Nobody numbers until the transaction ends. */
export async function holdSequencer(transaction: Queryable): Promise<void> {
  await transaction.rows(waitLock)
}
