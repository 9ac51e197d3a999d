// Merges versions of tags that other regions made: each into the history, and the greatest into the tag. The merged
// versions are then judged for lost races and for deletes that killed something unseen (db/conflicts.ts).

import type { RepositoryIds } from './merge-registers.ts'
import { seenOfShard } from './registers.ts'
import { type Queryable, statement } from './statement.ts'

export interface MergedTag {
  readonly repository: string
  readonly name: string
  readonly digest: string
  readonly h: string
  readonly origin: string
  readonly prevH: string
  readonly prevOrigin: string
  readonly alive: boolean
  readonly actor: string
  /** ISO 8601. */
  readonly at: string
  readonly written: { readonly epoch: number; readonly id: number }
  /** null: not known. */
  readonly events: unknown
}

const VERSIONS = `jsonb_to_recordset(:rows::jsonb) as came (repository_id bigint, name text, digest text, h bigint,
  origin text, prev_h bigint, prev_origin text, alive bool, actor text, at timestamptz, written_epoch integer,
  written_id bigint, events jsonb)`

const TAG_ORDER = (row: string) =>
  `${row}.h, ${row}.origin collate "C", not ${row}.alive, ${row}.digest collate "C"`

const mergeTags = statement<never>(
  'merge-tags',
  `insert into tag as t (repository_id, name, digest, h, origin, prev_h, prev_origin, alive, actor, at)
   select distinct on (came.repository_id, came.name collate "C")
     came.repository_id, came.name, digest, h, origin, prev_h, prev_origin, alive, actor, at
   from ${VERSIONS}
   order by came.repository_id, came.name collate "C", h desc, origin collate "C" desc, alive, digest collate "C" desc
   on conflict (repository_id, name) do update
     set digest = excluded.digest, h = excluded.h, origin = excluded.origin, prev_h = excluded.prev_h,
       prev_origin = excluded.prev_origin, alive = excluded.alive, actor = excluded.actor, at = excluded.at
     where (${TAG_ORDER('excluded')}) > (${TAG_ORDER('t')})`,
)

const mergeHistory = statement<never>(
  'merge-tag-history',
  `insert into tag_history as was (repository_id, name, digest, h, origin, prev_h, prev_origin, alive, actor, at,
     written_epoch, written_id, events, early)
   select came.repository_id, came.name, came.digest, came.h, came.origin, prev_h, prev_origin, came.alive, actor, at,
     written_epoch, written_id, events,
     not :by_log::bool and (came.origin = region.name or not is_seen(${seenOfShard(':shard')}, came.origin, events))
   from ${VERSIONS} cross join region
   order by came.repository_id, came.digest collate "C", came.name collate "C", came.h, came.origin collate "C", came.alive
   on conflict (repository_id, digest, name, h, origin, alive) do update
     set events = both_events(was.events, excluded.events), early = was.early and excluded.early,
       (written_epoch, written_id) = (
         select * from (values (was.written_epoch, was.written_id), (excluded.written_epoch, excluded.written_id)) as w
         order by 1 desc, 2 desc limit 1)
     where was.early or was.events is distinct from both_events(was.events, excluded.events)
       or (excluded.written_epoch, excluded.written_id) > (was.written_epoch, was.written_id)`,
)

/** Merges versions, each given once, of tags whose repositories and memberships this transaction merges. */
export async function mergeTagVersions(
  transaction: Queryable,
  options: { ids: RepositoryIds; versions: readonly MergedTag[]; shard: number; byLog: boolean },
): Promise<void> {
  const { ids, versions, shard, byLog } = options
  if (versions.length === 0) return
  const rows = JSON.stringify(
    versions.map(({ repository, prevH, prevOrigin, written, ...rest }) => ({
      ...rest,
      repository_id: ids.get(repository),
      prev_h: prevH,
      prev_origin: prevOrigin,
      written_epoch: written.epoch,
      written_id: written.id,
    })),
  )
  await transaction.rows(mergeTags, { rows })
  await transaction.rows(mergeHistory, { rows, shard, by_log: byLog })
}
