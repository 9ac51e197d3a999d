// The event log: outbox rows, numbered, in the order in which the registers they tell of were locked.
//
// One sequencer at a time moves rows: the one that gets the transaction-scoped lock. Leadership and the move commit or
// roll back together, so a sequencer that dies or is frozen can neither lose nor repeat a number. The order of two
// events of one key is the order of their outbox ids, because each id was drawn under that key's row lock. Rows of slow
// transactions simply come later.
//
// A move logs everything that it takes, or nothing. It reads the epoch, gives numbers under that epoch, and creates the
// epoch's heads itself. Pages of the log are bounded by the rendered size of their events, which is measured once, when
// an event is numbered.

import type { EventSource } from '#shared/events/cloud-event.ts'
import { recordServer } from './server.ts'
import { maybe, one, type Queryable, statement } from './statement.ts'

/** A position in the log: after this event. */
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

/**
 * Maximum rendered size of one event in the feed. A larger event is stored in two parts: the event without
 * `references`, and the references.
 */
const EVENT_BYTES_MAX = 128 * 1024
/** Maximum rendered size of one page of the feed. More than one event always fits. */
const PAGE_BYTES_MAX = 512 * 1024
const ABRIDGED = `payload || '{"references": [], "abridged": true}'`
const IS_LARGE = `bytes > ${EVENT_BYTES_MAX} and payload ? 'references'`
const MEASURE = 'event_bytes(type, subject, repository, actor, payload, request)'

/** The size of an event when it is rendered whole, without its content. Rows of an older release do not have it. */
export const RENDERED_BYTES = `coalesce(bytes, ${MEASURE})`
/** The payload, including the part that was stored separately. */
export const WHOLE_PAYLOAD =
  "case when left_out is null then payload else (payload - 'abridged') || left_out end as payload"

/**
 * Numbers the rows of `taken`, in the order of `place`, under the region's current epoch, and logs them. Missing heads
 * of the epoch are created here, so an epoch is never without heads after a raise.
 */
const NUMBER_AND_LOG = `
   placed as (
     select taken.*, row_number() over (order by place) as in_region,
       row_number() over (partition by shard order by place) as in_shard, ${MEASURE} as bytes
     from taken
   ),
   counted as (
     select -1 as shard, count(*) as n from placed having count(*) > 0
     union all
     select shard, count(*) from placed group by shard
   ),
   head as (
     insert into event_head (epoch, shard, seq)
     select region.epoch, counted.shard, counted.n from counted cross join region
     order by counted.shard
     on conflict (epoch, shard) do update set seq = event_head.seq + excluded.seq
     returning epoch, shard, seq
   ),
   base as (
     select head.epoch, head.shard, head.seq - counted.n as seq from head join counted on counted.shard = head.shard
   ),
   logged as (
     insert into event_log (epoch, pos, shard, seq, outbox_id, repository, type, subject, payload, content,
       traceparent, actor, request, instance, time, bytes, left_out)
     select base.epoch, region.seq + in_region, placed.shard, base.seq + in_shard, outbox_id, repository, type,
       subject, case when ${IS_LARGE} then ${ABRIDGED} else payload end, content,
       traceparent, actor, request, instance, time, bytes,
       case when ${IS_LARGE} then jsonb_build_object('references', payload -> 'references') end
     from placed
     join base on base.shard = placed.shard
     join base as region on region.shard = -1
     order by in_region
     returning 1
   )
   select (select count(*) from taken) as taken, (select count(*) from logged) as logged`

const move = statement<Moved>(
  'move-outbox',
  `with taken as (
     delete from outbox where id in (select id from outbox order by id limit :limit)
     returning id as place, id as outbox_id, repository, shard, type, subject, payload, content, traceparent, actor,
       request, instance, time
   ),
   ${NUMBER_AND_LOG}`,
)

interface Moved {
  readonly taken: number
  readonly logged: number
}

/** @throws Error if not everything that was taken is logged: the transaction must roll back */
function allLogged({ taken, logged }: Moved): number {
  if (taken !== logged) throw new Error(`of ${taken} events that were taken, ${logged} were logged`)
  return logged
}

const pending = statement<{ pending: boolean }>(
  'outbox-pending',
  // Uses the index. Moved rows stay in the table, dead, until it is vacuumed, but the index remembers which entries are
  // dead.
  `select (select id from outbox order by id limit 1) is not null as pending`,
)

/** True if the outbox has rows. Cheap: takes no lock and no transaction id. */
export async function outboxPending(db: Queryable): Promise<boolean> {
  return (await one(db, pending)).pending
}

/**
 * Moves up to `limit` rows and returns their number, or undefined if another sequencer holds the lock. Must run in its
 * own transaction: the lock is its first statement, so that the move sees what the previous holder did. Compares the
 * server with the one seen last, and if it is another, first raises the epoch.
 * @throws Error if it cannot log everything that it took
 */
export async function moveOutbox(
  transaction: Queryable,
  options: { limit: number; onRaised?(epoch: number): void },
): Promise<number | undefined> {
  const { limit, onRaised } = options
  if (!(await one(transaction, lock)).held) return undefined
  const raised = await recordServer(transaction)
  if (raised !== undefined) onRaised?.(raised)
  return allLogged(await one(transaction, move, { limit }))
}

const page = statement<LoggedEvent>(
  'read-events',
  `with candidate as materialized (
     select epoch, pos, ${RENDERED_BYTES} as bytes
     from event_log where (epoch, pos) > (:epoch::int, :pos::bigint) order by epoch, pos limit :limit
   ),
   measured as (
     select epoch, pos, bytes, sum(least(bytes, ${EVENT_BYTES_MAX})) over (order by epoch, pos) as page_bytes
     from candidate
   )
   select epoch, pos, shard, seq, repository, type, subject, traceparent, actor, request, instance, time,
     -- An older release has logged it in one part.
     case when event_log.bytes is null and measured.${IS_LARGE} then ${ABRIDGED} else payload end as payload
   from measured join event_log using (epoch, pos)
   where page_bytes <= ${PAGE_BYTES_MAX}
   order by epoch, pos`,
)

/**
 * Returns events after a position, in order, without their content: at most `limit`, and at most 512 KiB when rendered.
 * An event of more than 128 KiB is abridged. The result is empty only at the end of the log.
 */
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
  old_epoch: number
  old_pos: number
}>(
  'event-log-bounds',
  `select region.epoch, coalesce(head.seq, 0) as pos,
     coalesce(oldest.epoch, last.epoch, region.epoch) as old_epoch,
     coalesce(oldest.pos - 1, last.seq, 0) as old_pos
   from region
   left join event_head as head on head.epoch = region.epoch and head.shard = -1
   left join lateral (select epoch, seq from event_head where shard = -1 order by epoch desc limit 1) as last on true
   left join lateral (select epoch, pos from event_log order by epoch, pos limit 1) as oldest on true`,
)

/**
 * Returns the last position that can have been given out, and the position before the oldest event that is left, where
 * reading may begin. For an epoch without events, the head is the epoch's beginning: positions of earlier epochs are
 * never beyond it.
 */
export async function logBounds(db: Queryable): Promise<{ head: LogPosition; oldest: LogPosition }> {
  const row = await one(db, bounds)
  return {
    head: { epoch: row.epoch, pos: row.pos },
    oldest: { epoch: row.old_epoch, pos: row.old_pos },
  }
}

const byOutbox = statement<{
  epoch: number | null
  pos: number | null
  waiting: boolean
  given: boolean
  gone: boolean
}>(
  'position-of-outbox',
  `select logged.epoch, logged.pos,
     :epoch <= region.epoch as given,
     exists (select from outbox where id = :outbox_id) as waiting,
     :epoch < region.epoch or :outbox_id <= coalesce(region.trimmed_outbox_id, 0)
       or :outbox_id < coalesce(oldest.outbox_id, 0) as gone
   from region
   left join lateral (
     select epoch, pos from event_log
     where epoch >= :epoch::int and outbox_id = :outbox_id::bigint order by epoch limit 1) as logged on true
   left join lateral (select outbox_id from event_log order by epoch, pos limit 1) as oldest on true`,
)

/**
 * Returns the position of the write that a `Portolan-Position` named. It is under a later epoch if the epoch was raised
 * before the write was numbered. 'waiting': the relay has not numbered the write yet. 'gone': it was trimmed, or lost
 * with a former server. 'never': no write got this position.
 */
export async function positionOfOutbox(
  db: Queryable,
  options: { epoch: number; outboxId: number },
): Promise<LogPosition | 'waiting' | 'gone' | 'never'> {
  const { epoch, outboxId } = options
  const row = await one(db, byOutbox, { epoch, outbox_id: outboxId })
  if (row.epoch !== null && row.pos !== null) return { epoch: row.epoch, pos: row.pos }
  if (!row.given) return 'never'
  if (row.waiting) return 'waiting'
  return row.gone ? 'gone' : 'never'
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
   -- Removes events only from the beginning, so what is left has no holes.
   gone as (
     delete from event_log where (epoch, pos) in (
       select epoch, pos from doomed
       where (epoch, pos) < (select epoch, pos from needed) or not exists (select from needed))
     returning outbox_id),
   noted as (
     update region set trimmed_outbox_id = greatest(trimmed_outbox_id, (select max(outbox_id) from gone))
     where exists (select from gone))
   select count(*) as trimmed from gone`,
)

/**
 * Removes up to `limit` of the oldest events that are older than the retention and that every reader has passed, and
 * returns their number. A reader that has not reported for `readerSeconds` no longer counts.
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

/**
 * Returns what is at a position of the log: the event, 'trimmed' if it was kept once, or 'never' if the position was
 * never given out.
 */
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

const relog = statement<Moved>(
  'relog-events',
  `with taken as (
     select row_number() over (order by epoch, pos) as place, outbox_id, repository, shard, type, subject,
       ${WHOLE_PAYLOAD}, content, traceparent, actor, request, instance, time
     from event_log where (epoch, pos) > (:epoch::int, :pos::bigint)
   ),
   ${NUMBER_AND_LOG}`,
)

/**
 * Numbers the events after a position again, under an epoch that this transaction just raised, and returns their
 * number. For a restored log: the numbers that it gave out since the restore had already been given to other events.
 * Nothing else is numbered at the same time.
 */
export async function relogEvents(transaction: Queryable, after: LogPosition): Promise<number> {
  return allLogged(await one(transaction, relog, { epoch: after.epoch, pos: after.pos }))
}

/** Blocks all numbering until the transaction ends. */
export async function holdSequencer(transaction: Queryable): Promise<void> {
  await transaction.rows(waitLock)
}
