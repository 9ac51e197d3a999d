// Tags: the tombstone that deletes one, and the register itself. Pushes write tags in push-manifest.ts. Pages of
// visible tags are read in pages.ts.

import type { RepositoryName, Tag } from '#shared/oci/reference.ts'
import { type Provenance, provenanceParameters } from './provenance.ts'
import {
  EPOCH,
  lastOf,
  numbered,
  RETURNING_TAG,
  recorded,
  tagHistoryFrom,
  tagShows,
  versionJson,
  type WritePosition,
} from './registers.ts'
import { maybe, type Queryable, statement } from './statement.ts'

// Locks the tag in any state. What it points to is judged when no other transaction can move it any more.
const lock = statement<{ repository_id: number }>(
  'lock-tag',
  `with repo as (
     select id from repository where name = :repository for key share
   )
   select t.repository_id
   from repo join tag as t on t.repository_id = repo.id and t.name = :tag
   for no key update of t`,
)

// A separate statement after the lock: it sees the membership that the tag's digest has now.
const tombstone = statement<{ outbox_id: number; epoch: number }>(
  'delete-tag',
  `with deleted as (
     update tag as t
     set alive = false, h = greatest(hlc_now(), t.h + 1, r.dead_h + 1), origin = :origin,
       prev_h = t.h, prev_origin = t.origin, actor = :actor, at = clock_timestamp()
     from repository as r, membership as m
     where t.repository_id = :repository_id and t.name = :tag
       and r.id = t.repository_id
       and m.repository_id = t.repository_id and m.kind = 'manifest' and m.digest = t.digest
       and ${tagShows('t', 'm', 'r')}
     ${RETURNING_TAG}
   ),
   event as (${numbered(`
     select 0 as place, name, null::bigint as id, ${EPOCH} as epoch,
       'dev.portolan.registry.tag.deleted.v1' as type,
       :repository || ':' || name as subject,
       jsonb_build_object('repository', :repository::text, 'tag', name, 'digest', digest,
         'version', ${versionJson('deleted')}, 'prev', ${versionJson('deleted.prev')}) as payload,
       null::bytea as content
     from deleted
     union all
     select 1, null, null, ${EPOCH}, 'dev.portolan.registry.delete.v1', :repository || ':' || name,
       jsonb_build_object('repository', :repository::text, 'tag', name, 'digest', digest), null
     from deleted`)}
   ),
   history as (${tagHistoryFrom('deleted', 'event')}),
   recorded as (${recorded('event')})
   select outbox_id, ${EPOCH} as epoch from recorded`,
)

/** Must run in its own transaction. Returns undefined if no such tag is visible. */
export async function deleteTag(
  transaction: Queryable,
  options: {
    repository: RepositoryName
    shard: number
    tag: Tag
    origin: string
    provenance: Provenance
  },
): Promise<WritePosition | undefined> {
  const { repository, tag } = options
  const locked = await maybe(transaction, lock, { repository, tag })
  if (locked === undefined) return undefined
  const { provenance, ...rest } = options
  const events = await transaction.rows(tombstone, {
    ...rest,
    repository_id: locked.repository_id,
    ...provenanceParameters(provenance),
  })
  return events.length === 0 ? undefined : lastOf(events)
}

const current = statement<{ digest: string; alive: boolean; h: string }>(
  'tag-register',
  `select tag.digest, tag.alive, tag.h::text
   from tag join repository on repository.id = tag.repository_id
   where repository.name = :repository and tag.name = :tag`,
)

/** Returns the register itself, tombstone or not. */
export async function tagRegister(
  db: Queryable,
  options: { repository: RepositoryName; tag: Tag },
): Promise<{ digest: string; alive: boolean; h: bigint } | undefined> {
  const row = await maybe(db, current, options)
  return row && { ...row, h: BigInt(row.h) }
}
