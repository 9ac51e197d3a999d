// Conflicts between regions, found from rows: tags whose writes raced, and deletes that killed what their region had
// not seen. The rules are those of shared/convergence/conflicts.ts.
//
// Rows are found when registers are merged, and judged again when they are read. A local push or delete reads only its
// own registers and may settle a conflict. A local write never creates one, because it has seen everything that is
// here.

import type { RepositoryIds } from './merge-registers.ts'
import { versionOf } from './registers.ts'
import { type Queryable, statement } from './statement.ts'

// Marks a version that another version names as its predecessor.
const supersede = statement<never>(
  'supersede-versions',
  `update tag_history as was set superseded = true
   from jsonb_to_recordset(:tags::jsonb) as touched (repository_id bigint, name text), tag_history as next
   where was.repository_id = touched.repository_id and was.name = touched.name collate "C" and not was.superseded
     and next.repository_id = was.repository_id and next.name = was.name
     and next.prev_h = was.h and next.prev_origin = was.origin`,
)

/** True if the version `was` of the tag `t` lost a race. */
export const LOST = `(not was.superseded and was.h > (select pruned_h from region)
  and (${versionOf('was')} <> ${versionOf('t')} or was.digest <> t.digest)
  and not exists (
    select from tag_history as same
    where same.repository_id = was.repository_id and same.digest = was.digest and same.name = was.name
      and same.alive = was.alive and ${versionOf('same')} > ${versionOf('was')}))`

const findLost = statement<never>(
  'find-lost-versions',
  `insert into tag_conflict (repository_id, name, digest, h, origin, alive)
   select was.repository_id, was.name, was.digest, was.h, was.origin, was.alive
   from jsonb_to_recordset(:tags::jsonb) as touched (repository_id bigint, name text)
   join tag as t on t.repository_id = touched.repository_id and t.name = touched.name collate "C"
   join tag_history as was on was.repository_id = t.repository_id and was.name = t.name
   where ${LOST}
   order by was.repository_id, was.name, was.h, was.origin
   on conflict do nothing`,
)

/** Judges tags for lost races. Call it in the transaction that merged versions of them. */
export async function findTagConflicts(
  transaction: Queryable,
  options: { ids: RepositoryIds; tags: readonly { repository: string; name: string }[] },
): Promise<void> {
  const { ids, tags } = options
  if (tags.length === 0) return
  const rows = JSON.stringify(
    tags.map(({ repository, name }) => ({ repository_id: ids.get(repository), name })),
  )
  await transaction.rows(supersede, { tags: rows })
  await transaction.rows(findLost, { tags: rows })
}

export interface TagConflict {
  readonly name: string
  readonly digest: string
  readonly h: string
  readonly origin: string
  readonly alive: boolean
}

const listLost = statement<TagConflict>(
  'tag-conflicts',
  `select was.name, was.digest, was.h::text, was.origin, was.alive
   from repository as r
   join tag_conflict as found on found.repository_id = r.id
   join tag as t on t.repository_id = r.id and t.name = found.name
   join tag_history as was on was.repository_id = r.id and was.digest = found.digest and was.name = found.name
     and was.h = found.h and was.origin = found.origin and was.alive = found.alive
   where r.name = :repository and (found.name, found.h) > (:last_name, :last_h::bigint) and ${LOST}
     and not exists (
       select from tag_history as next
       where next.repository_id = r.id and next.name = was.name and next.prev_h = was.h and next.prev_origin = was.origin)
   order by found.name, found.h
   limit :limit`,
)

/** Returns versions of the repository's tags that lost a race which is not settled, by name and age. */
export async function tagConflicts(
  db: Queryable,
  options: { repository: string; lastName: string; lastH: string; limit: number },
): Promise<TagConflict[]> {
  const { repository, lastName, lastH, limit } = options
  return db.rows(listLost, { repository, last_name: lastName, last_h: lastH, limit })
}

/**
 * Returns where the log of a write's origin has the write. For this region's own writes, this region's own log tells.
 * The result is [] if the log has no such event: a trimmed event was passed by every live peer, and one that is not
 * numbered yet was seen by no region.
 */
function eventsOf(write: string): string {
  return `case when ${write}.origin <> region.name or ${write}.events is not null then ${write}.events else coalesce(
    (select jsonb_agg(jsonb_build_object('epoch', logged.epoch, 'seq', logged.seq))
     from event_head as head join event_log as logged on logged.epoch = head.epoch and logged.outbox_id = ${write}.written_id
     where head.shard = -1),
    '[]') end`
}

const TRIMMED = `(write.origin = region.name and write.written_id <= coalesce(region.trimmed_outbox_id, 0))`

/** The writes of tags and manifests that are `touched`, with each death that may have killed them unseen. */
export const KILLED = `
  write as (
    select was.repository_id, was.name as subject, was.digest || ' ' || was.alive as value, was.digest, was.h, was.origin, was.written_epoch, was.written_id,
      was.events
    from touched join tag_history as was on was.repository_id = touched.repository_id
      and (touched.digest is null or was.digest = touched.digest)
      and (touched.name is null or was.name = touched.name)
    union
    select m.repository_id, m.digest, '', m.digest, m.alive_h, m.alive_origin, m.alive_written_epoch, m.alive_written_id,
      m.alive_events
    from touched join membership as m on m.repository_id = touched.repository_id and m.kind = 'manifest'
      and (touched.digest is null or m.digest = touched.digest)
    where m.alive_h > 0 and (touched.name is null or touched.name = m.digest)
  ),
  killed as (
    select write.*, death.h as dead_h, death.origin as dead_origin
    from write cross join region
    join repository as r on r.id = write.repository_id
    left join membership as m on m.repository_id = r.id and m.kind = 'manifest' and m.digest = write.digest
    cross join lateral (values
      (m.dead_h, m.dead_origin, m.dead_by), (r.dead_h, r.dead_origin, r.dead_by)) as death (h, origin, by)
    where ${versionOf('write')} <= (death.h, death.origin) and not ${TRIMMED}
      and killed_unseen(death.by, death.h, death.origin, write.subject, write.value, write.h, write.origin,
        write.written_epoch, write.written_id, ${eventsOf('write')})
  )`

const findKilled = statement<never>(
  'find-killed-unseen',
  `with touched as (
     select repository_id, name collate "C" as name, digest collate "C" as digest
     from jsonb_to_recordset(:touched::jsonb) as t (repository_id bigint, name text, digest text)
   ),
   ${KILLED}
   insert into delete_conflict (repository_id, subject, digest, h, origin, dead_h, dead_origin)
   select repository_id, subject, digest, h, origin, dead_h, dead_origin from killed
   order by repository_id, subject, h, origin
   on conflict do nothing`,
)

/**
 * A tag or a manifest (named by its digest) with its digest, a digest with all of its tags (no name), or everything.
 */
export interface Touched {
  readonly repository: string
  readonly name: string | null
  readonly digest: string | null
}

/** Judges writes and deaths that were merged. Call it in the transaction that merged them. */
export async function findDeleteConflicts(
  transaction: Queryable,
  options: { ids: RepositoryIds; touched: readonly Touched[] },
): Promise<void> {
  const { ids, touched } = options
  if (touched.length === 0) return
  const rows = touched.map(({ repository, ...rest }) => ({ ...rest, repository_id: ids.get(repository) }))
  await transaction.rows(findKilled, { touched: JSON.stringify(rows) })
}

export interface DeleteConflict {
  /** A tag or a manifest's digest. */
  readonly subject: string
  readonly digest: string
  readonly h: string
  readonly origin: string
  readonly deadH: string
  readonly deadOrigin: string
}

const listKilled = statement<DeleteConflict>(
  'delete-conflicts',
  `with found as (
     select c.* from delete_conflict as c join repository as r on r.id = c.repository_id
     where r.name = :repository and (c.subject, c.h) > (:last_subject, :last_h::bigint)
   ),
   touched as (
     select repository_id, subject as name, digest from found
   ),
   ${KILLED}
   select subject, digest, h::text, origin, dead_h::text as "deadH", dead_origin as "deadOrigin"
   from killed join found using (repository_id, subject, digest, h, origin, dead_h, dead_origin)
   order by subject, h, dead_h
   limit :limit`,
)

/** Returns writes of the repository that are dead because of a delete that had not seen them, by subject and age. */
export async function deleteConflicts(
  db: Queryable,
  options: { repository: string; lastSubject: string; lastH: string; limit: number },
): Promise<DeleteConflict[]> {
  const { repository, lastSubject, lastH, limit } = options
  return db.rows(listKilled, { repository, last_subject: lastSubject, last_h: lastH, limit })
}
