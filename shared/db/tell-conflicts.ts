// Reports conflicts, once each, in the region that lost: as an event for webhooks and feeds, written by the transaction
// that detected the conflict. Other regions know conflicts as rows (conflicts.ts).
//
// A lost race is reported when it is certain: when the chain of predecessors of the tag's current version is known down
// to below the lost version. Until then, a version that has not arrived yet may have overwritten it knowingly.

import { KILLED, LOST } from './conflicts.ts'
import type { RepositoryIds } from './merge-registers.ts'
import { EPOCH, numbered, recorded, versionJson, versionOf } from './registers.ts'
import { type Queryable, statement } from './statement.ts'

/** Maximum number of killed writes that the event of a delete names. */
const NAMED_MAX = 10

/** No request caused the event. */
const CAUSE = Object.freeze({ actor: '', request: '{}', traceparent: null, instance: 'replicator' })

const tellLost = statement<{ outbox_id: number }>(
  'tell-tag-conflicts',
  `with lost as (
     select found.*, r.name as repository, t.digest as winner_digest, t.alive as winner_alive,
       t.h as winner_h, t.origin as winner_origin
     from region
     cross join jsonb_to_recordset(:tags::jsonb) as touched (repository_id bigint, name text)
     join tag_conflict as found on found.repository_id = touched.repository_id
       and found.name = touched.name collate "C" and found.told_at is null and found.origin = region.name
     join repository as r on r.id = found.repository_id
     join tag as t on t.repository_id = r.id and t.name = found.name
     join tag_history as was on was.repository_id = r.id and was.digest = found.digest and was.name = found.name
       and was.h = found.h and was.origin = found.origin and was.alive = found.alive
     where ${LOST} and exists (
       with recursive chain as (
         select t.prev_h, t.prev_origin
         union all
         select before.prev_h, before.prev_origin
         from chain join tag_history as before on before.repository_id = r.id and before.name = t.name
           and before.h = chain.prev_h and before.origin = chain.prev_origin
         where ${versionOf('chain.prev')} > ${versionOf('found')}
       )
       select from chain where ${versionOf('chain.prev')} < ${versionOf('found')})
   ),
   told as (
     update tag_conflict as c set told_at = clock_timestamp()
     from lost
     where c.repository_id = lost.repository_id and c.name = lost.name and c.h = lost.h and c.origin = lost.origin
       and c.digest = lost.digest and c.alive = lost.alive
     returning lost.*
   ),
   event as (${numbered(
     `
     select 0 as place, name, null::bigint as id, ${EPOCH} as epoch, repository, 'dev.portolan.registry.tag.conflict.v1' as type,
       repository || ':' || name as subject,
       jsonb_build_object('repository', repository, 'tag', name, 'digest', digest, 'alive', alive,
         'version', ${versionJson('told')},
         'winner', jsonb_build_object('digest', winner_digest, 'alive', winner_alive,
           'version', ${versionJson('told.winner')})) as payload,
       null::bytea as content
     from told`,
     'e.repository',
   )}
   )
   ${recorded('event')}`,
)

const tellKilled = statement<{ outbox_id: number }>(
  'tell-delete-conflicts',
  `with touched as (
     select repository_id, name collate "C" as name, digest collate "C" as digest
     from jsonb_to_recordset(:touched::jsonb) as t (repository_id bigint, name text, digest text)
   ),
   ${KILLED},
   told as (
     update delete_conflict as c set told_at = clock_timestamp()
     from killed cross join region
     where c.told_at is null and killed.origin = region.name
       and c.repository_id = killed.repository_id and c.subject = killed.subject and c.h = killed.h
       and c.origin = killed.origin and c.digest = killed.digest and c.dead_h = killed.dead_h
       and c.dead_origin = killed.dead_origin
     returning c.*
   ),
   placed as (
     select told.*, r.name as repository,
       row_number() over (partition by r.id, told.dead_h, told.dead_origin order by told.subject, told.h) as nth
     from told join repository as r on r.id = told.repository_id
   ),
   event as (${numbered(
     `
     select 0 as place, null::text as name, null::bigint as id, ${EPOCH} as epoch, repository,
       'dev.portolan.registry.delete.conflict.v1' as type, repository as subject,
       jsonb_build_object('repository', repository,
         'death', jsonb_build_object('h', dead_h::text, 'origin', dead_origin), 'count', count(*),
         'killed', jsonb_agg(jsonb_build_object('subject', subject, 'digest', digest,
           'version', ${versionJson('placed')}) order by nth) filter (where nth <= ${NAMED_MAX})) as payload,
       null::bytea as content
     from placed
     group by repository, dead_h, dead_origin`,
     'e.repository',
   )}
   )
   ${recorded('event')}`,
)

/** Reports those lost races of these tags that were not reported yet. Call it after they were found. */
export async function tellTagConflicts(
  transaction: Queryable,
  options: { ids: RepositoryIds; tags: readonly { repository: string; name: string }[]; shard: number },
): Promise<void> {
  const { ids, tags, shard } = options
  if (tags.length === 0) return
  const rows = tags.map(({ repository, name }) => ({ repository_id: ids.get(repository), name }))
  await transaction.rows(tellLost, { tags: JSON.stringify(rows), shard, ...CAUSE })
}

/** The same for writes that were killed unseen: one event for each delete. */
export async function tellDeleteConflicts(
  transaction: Queryable,
  options: {
    ids: RepositoryIds
    touched: readonly { repository: string; name: string | null; digest: string | null }[]
    shard: number
  },
): Promise<void> {
  const { ids, touched, shard } = options
  if (touched.length === 0) return
  const rows = touched.map(({ repository, ...rest }) => ({ ...rest, repository_id: ids.get(repository) }))
  await transaction.rows(tellKilled, { touched: JSON.stringify(rows), shard, ...CAUSE })
}
