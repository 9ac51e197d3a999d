// Writes events to a region's log without pushes. The real sequencer numbers them.

import { createHash } from 'node:crypto'
import { moveOutbox, outboxPending } from '#shared/db/event-log.ts'
import { type Queryable, statement } from '#shared/db/statement.ts'
import type { Region } from '#shared/region.ts'

/** One repository for each shard, for example a0 in shard 0. */
export const SHARD_REPOSITORIES: readonly string[] = Array.from({ length: 8 }, (_, shard) => {
  for (let n = 0; ; n++) {
    const name = `shard${shard}/r${n}`
    if (((createHash('sha256').update(name).digest()[0] ?? 0) & 7) === shard) return name
  }
})

const insert = statement<never>(
  'test-fill-outbox',
  `insert into outbox (repository, shard, type, subject, payload, content, actor, request, instance)
   select names.name, names.place - 1, :type, names.name || '@' || n,
     jsonb_build_object('repository', names.name, 'n', n, 'references', jsonb_build_array(repeat('x', :filler::int))),
     :content::bytea, 'tester', '{}'::jsonb, 'test'
   from generate_series(1, :count::int) as n
   join unnest(:names::text[]) with ordinality as names (name, place) on names.place = 1 + n % 8
   order by n`,
)

export interface FillOptions {
  count: number
  type?: string
  /** Bytes of manifest in each event. */
  content?: Buffer
  /** Characters of references in each event. */
  filler?: number
}

/** Adds this number of events across all shards, ordered by `n`. */
export async function fillOutbox(db: Queryable, options: FillOptions): Promise<void> {
  const { count, type = 'dev.portolan.registry.push.v1', content = null, filler = 0 } = options
  await db.rows(insert, { names: SHARD_REPOSITORIES, count, type, content, filler })
}

/** Numbers the events in the outbox. */
export async function numberOutbox(region: Region): Promise<void> {
  while (await outboxPending(region.db))
    await region.db.transaction((transaction) => moveOutbox(transaction, { limit: 500 }))
}

export async function fillLog(region: Region, options: FillOptions): Promise<void> {
  await fillOutbox(region.db, options)
  await numberOutbox(region)
}
