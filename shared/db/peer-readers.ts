// How far other regions have read this region's log, as they report it, shard by shard, and when each last reported.
// Trimming of the log waits for them (event-log.ts). This region's own readers are in own-readers.ts.
//
// The table is `log_reader`. It keeps that name because a release and the previous one run side by side on one schema.

import type { ShardPosition } from '#shared/events/event-id.ts'
import { type Queryable, statement } from './statement.ts'

const note = statement<never>(
  'note-reader',
  `insert into log_reader as r (reader, shard, epoch, seq)
   select :reader, at.shard, at.epoch, at.seq
   from unnest(:shards::smallint[], :epochs::int[], :seqs::bigint[]) as at (shard, epoch, seq)
   order by at.shard
   on conflict (reader, shard) do update
     set epoch = excluded.epoch, seq = excluded.seq, seen_at = clock_timestamp()`,
)

/** Records a reader's current position. The position may be lower than before: the reader's report counts. */
export async function notePeerReader(
  db: Queryable,
  reader: string,
  at: readonly ShardPosition[],
): Promise<void> {
  await db.rows(note, {
    reader,
    shards: at.map(({ shard }) => shard),
    epochs: at.map(({ epoch }) => epoch),
    seqs: at.map(({ seq }) => seq),
  })
}

const behind = statement<{ reader: string; behind: number; seconds: number }>(
  'log-readers-behind',
  `select r.reader, coalesce(sum(head.seq - case when head.epoch = r.epoch then r.seq else 0 end), 0)::bigint as behind,
     extract(epoch from clock_timestamp() - max(r.seen_at))::float8 as seconds
   from log_reader as r
   left join event_head as head on head.shard = r.shard and head.epoch >= r.epoch
     and head.seq > case when head.epoch = r.epoch then r.seq else 0 end
   group by r.reader order by r.reader`,
)

/** Returns the number of events that each reader has not read yet, and the time since its last report. */
export async function peerReadersBehind(
  db: Queryable,
): Promise<{ reader: string; behind: number; seconds: number }[]> {
  return db.rows(behind)
}
