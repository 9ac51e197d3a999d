// The event log as readers by shard see it: whole events, with the content of manifests, after a position in each of
// several shards. A page is bounded in rows and bytes. What does not fit is cut off at the end of each shard, never in
// the middle.

import type { EventSource } from '#shared/events/cloud-event.ts'
import type { ShardPosition } from '#shared/events/event-id.ts'
import { RENDERED_BYTES, WHOLE_PAYLOAD } from './event-log.ts'
import { type Queryable, statement } from './statement.ts'

export interface WholeEvent extends EventSource {
  readonly content: Buffer | null
}

/** Includes the content as base64, whose length is known without reading it. */
const WHOLE_BYTES = `(${RENDERED_BYTES} + (coalesce(octet_length(content), 0) + 2) / 3 * 4)`

const page = statement<WholeEvent>(
  'read-shards',
  `with candidate as materialized (
     select found.epoch, found.pos, found.bytes,
       row_number() over (partition by found.shard order by found.epoch, found.seq) as place, found.shard
     from unnest(:shards::smallint[], :epochs::int[], :seqs::bigint[]) as at (shard, epoch, seq)
     cross join lateral (
       (select epoch, pos, shard, seq, ${WHOLE_BYTES} as bytes
        from event_log where epoch = at.epoch and shard = at.shard and seq > at.seq order by seq limit :limit)
       union all
       (select epoch, pos, shard, seq, ${WHOLE_BYTES}
        from event_log where epoch > at.epoch and shard = at.shard order by epoch, seq limit :limit)
       order by epoch, seq limit :limit
     ) as found
   ),
   -- Sums the sizes in a fair order across shards. A prefix of this order is a prefix of each shard.
   measured as (
     select epoch, pos, bytes, sum(bytes) over (order by place, shard) as page_bytes from candidate
   )
   select epoch, pos, shard, seq, repository, type, subject, ${WHOLE_PAYLOAD}, content, traceparent, actor, request,
     instance, time
   from measured join event_log using (epoch, pos)
   where page_bytes <= :bytes_max or page_bytes = measured.bytes
   order by shard, epoch, seq`,
)

/**
 * Returns events after each position, ordered by shard and place: at most `bytesMax` when rendered, or one event alone.
 */
export async function readShards(
  db: Queryable,
  options: { after: readonly ShardPosition[]; limitPerShard: number; bytesMax: number },
): Promise<WholeEvent[]> {
  const { after, limitPerShard, bytesMax } = options
  return db.rows(page, {
    shards: after.map(({ shard }) => shard),
    epochs: after.map(({ epoch }) => epoch),
    seqs: after.map(({ seq }) => seq),
    limit: limitPerShard,
    bytes_max: bytesMax,
  })
}

const whole = statement<WholeEvent>(
  'read-whole-events',
  `with candidate as materialized (
     select epoch, pos, ${WHOLE_BYTES} as bytes
     from event_log where (epoch, pos) > (:epoch::int, :pos::bigint) order by epoch, pos limit :limit
   ),
   measured as (
     select epoch, pos, bytes, sum(bytes) over (order by epoch, pos) as page_bytes from candidate
   )
   select epoch, pos, shard, seq, repository, type, subject, ${WHOLE_PAYLOAD}, content, traceparent, actor, request,
     instance, time
   from measured join event_log using (epoch, pos)
   where page_bytes <= :bytes_max or page_bytes = measured.bytes
   order by epoch, pos`,
)

/** Returns events after a position in the order of the region: at most `bytesMax` when rendered, or one event alone. */
export async function readWholeEvents(
  db: Queryable,
  options: { after: { epoch: number; pos: number }; limit: number; bytesMax: number },
): Promise<WholeEvent[]> {
  const { after, limit, bytesMax } = options
  return db.rows(whole, { epoch: after.epoch, pos: after.pos, limit, bytes_max: bytesMax })
}

export interface ShardState {
  readonly shard: number
  /** The number of events after the position. */
  readonly behind: number
  /** True if some of them are no longer kept. */
  readonly missed: boolean
  /** The position before the oldest event that is left, where reading may begin. */
  readonly oldest: ShardPosition
}

const state = statement<{
  shard: number
  behind: number
  left_over: number
  old_epoch: number
  old_seq: number
}>(
  'shard-state',
  `select at.shard, after_at.events as behind, after_oldest.events as left_over,
     oldest.epoch as old_epoch, oldest.seq as old_seq
   from unnest(:shards::smallint[], :epochs::int[], :seqs::bigint[]) as at (shard, epoch, seq)
   cross join lateral (
     select coalesce(
       (select epochs.epoch from event_head as epochs
        where epochs.shard = at.shard and exists (
          select from event_log where epoch = epochs.epoch and shard = at.shard)
        order by epochs.epoch limit 1),
       (select max(epoch) from event_head where shard = at.shard), 1) as epoch
   ) as kept
   cross join lateral (
     select kept.epoch, coalesce(
       (select seq - 1 from event_log where epoch = kept.epoch and shard = at.shard order by seq limit 1),
       (select seq from event_head where epoch = kept.epoch and shard = at.shard), 0) as seq
   ) as oldest
   cross join lateral (
     select coalesce(sum(seq - case when epoch = at.epoch then at.seq else 0 end), 0)::bigint as events
     from event_head
     where shard = at.shard and epoch >= at.epoch and seq > case when epoch = at.epoch then at.seq else 0 end
   ) as after_at
   cross join lateral (
     select coalesce(sum(seq - case when epoch = oldest.epoch then oldest.seq else 0 end), 0)::bigint as events
     from event_head where shard = at.shard and epoch >= oldest.epoch
   ) as after_oldest
   order by at.shard`,
)

/** Returns how many events follow each position, and which of them are left. */
export async function shardStates(db: Queryable, after: readonly ShardPosition[]): Promise<ShardState[]> {
  const rows = await db.rows(state, {
    shards: after.map(({ shard }) => shard),
    epochs: after.map(({ epoch }) => epoch),
    seqs: after.map(({ seq }) => seq),
  })
  return rows.map(({ shard, behind, left_over, old_epoch, old_seq }) => ({
    shard,
    behind,
    missed: behind > left_over,
    oldest: { shard, epoch: old_epoch, seq: old_seq },
  }))
}
