// Deleting what a repository holds: a manifest by digest, or its link to a blob. The work is constant, whatever the
// number of tags: the membership dies with a version above every tag on it, and no tag row is written.
//
// Two statements in one transaction. The first locks the membership. The second sees everything that was committed
// before the lock was granted. A push that came first is therefore found (its references refuse the delete, its tags
// raise the death's version). A push that comes later finds the membership dead and revives it with a greater version.

import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { type Provenance, provenanceParameters } from './provenance.ts'
import {
  deathKnowing,
  EPOCH,
  lastOf,
  linkShows,
  manifestShows,
  memberShows,
  NEXT_EVENT_ID,
  numbered,
  recorded,
  versionJson,
  type WritePosition,
} from './registers.ts'
import { maybe, one, type Queryable, statement } from './statement.ts'

/** Maximum number of manifests named in the error when they prevent a delete. */
const REFERRING_MAX = 10

const lock = statement<{ repository_id: number }>(
  'lock-membership',
  `with repo as (
     select id, dead_h, dead_origin from repository where name = :repository for key share
   )
   select m.repository_id
   from repo
   join membership as m on m.repository_id = repo.id and m.kind = :kind and m.digest = :digest
   where ${memberShows('m', 'repo')}
   for no key update of m`,
)

const referring = statement<{ manifest: Digest }>(
  'referring-manifests',
  `select distinct reference.manifest
   from manifest_reference as reference
   join membership as m on m.repository_id = :repository_id and m.kind = 'manifest' and m.digest = reference.manifest
   join repository as r on r.id = m.repository_id
   where reference.digest = :digest and reference.target = :kind and reference.kind <> 'subject'
     and reference.manifest <> :digest
     and ${manifestShows('m', 'r')}
   limit ${REFERRING_MAX}`,
)

const die = statement<{ outbox_id: number; epoch: number }>(
  'delete-membership',
  `with died as (
     update membership as m
     set dead_h = 1 + greatest(hlc_now(), m.alive_h, m.dead_h,
           (select max(h) from tag
            where m.kind = 'manifest' and repository_id = m.repository_id and digest = m.digest)),
         dead_origin = :origin,
         dead_prev_h = m.alive_h, dead_prev_origin = m.alive_origin,
         dead_by = ${deathKnowing({
           shard: ':shard',
           id: 'drawn.id',
           targets: `
             select digest as subject, '' as value, alive_h as h, alive_origin as origin from membership
             where repository_id = m.repository_id and kind = m.kind and digest = m.digest and alive_early
             union all
             select name, digest || ' ' || alive, h, origin from tag_history
             where m.kind = 'manifest' and repository_id = m.repository_id and digest = m.digest and early`,
         })}
     from (select ${NEXT_EVENT_ID} as id) as drawn
     where m.repository_id = :repository_id and m.kind = :kind and m.digest = :digest
     returning m.*
   ),
   event as (${numbered(`
     select 0 as place, null as name, (dead_by #>> '{written,id}')::bigint as id, ${EPOCH} as epoch,
       'dev.portolan.registry.' || :kind || '.deleted.v1' as type, :repository || '@' || :digest as subject,
       jsonb_build_object('repository', :repository::text, 'kind', :kind::text, 'digest', :digest::text,
         'version', ${versionJson('died.dead')}, 'prev', ${versionJson('died.dead_prev')}) || dead_by as payload,
       null::bytea as content
     from died
     union all
     select 1, null, null, ${EPOCH}, 'dev.portolan.registry.delete.v1', :repository || '@' || :digest,
       jsonb_build_object('repository', :repository::text, 'kind', :kind::text, 'digest', :digest::text), null
     from died`)}
   ),
   recorded as (${recorded('event')})
   select outbox_id, ${EPOCH} as epoch from recorded`,
)

export type DeleteOutcome =
  | { readonly kind: 'deleted'; readonly position: WritePosition }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'referenced'; readonly by: readonly Digest[] }

/** Must run in its own transaction. */
export async function deleteMembership(
  db: Queryable,
  options: {
    repository: RepositoryName
    shard: number
    kind: 'manifest' | 'blob'
    digest: Digest
    origin: string
    provenance: Provenance
  },
): Promise<DeleteOutcome> {
  const { repository, kind, digest } = options
  const locked = await maybe(db, lock, { repository, kind, digest })
  if (locked === undefined) return { kind: 'unknown' }
  const { repository_id } = locked
  const by = await db.rows(referring, { repository_id, kind, digest })
  if (by.length > 0) return { kind: 'referenced', by: by.map(({ manifest }) => manifest) }
  const { provenance, ...rest } = options
  const rows = await db.rows(die, { ...rest, repository_id, ...provenanceParameters(provenance) })
  return { kind: 'deleted', position: lastOf(rows) }
}

const homes = statement<{ name: RepositoryName }>(
  'repositories-with-blob',
  `select r.name
   from membership as m
   join repository as r on r.id = m.repository_id
   where m.digest = :digest and m.kind = 'blob'
     and ${linkShows('m', 'r')}
   limit :limit`,
)

/** Returns some repositories that hold the blob, at most `limit`. A mount without `from` chooses from them. */
export async function repositoriesWithBlob(
  db: Queryable,
  options: { digest: Digest; limit: number },
): Promise<RepositoryName[]> {
  return (await db.rows(homes, options)).map(({ name }) => name)
}

const linked = statement<{ digest: Digest }>(
  'blob-link',
  `select m.digest
   from repository as r
   join membership as m on m.repository_id = r.id and m.kind = 'blob' and m.digest = :digest
   where r.name = :repository
     and (m.alive_h, m.alive_origin) > (m.dead_h, m.dead_origin)
     and (m.alive_h, m.alive_origin) > (r.dead_h, r.dead_origin)`,
)

/** True if the repository links the blob, whether or not its bytes are here. */
export async function isBlobLinked(
  db: Queryable,
  options: { repository: RepositoryName; digest: Digest },
): Promise<boolean> {
  return (await maybe(db, linked, options)) !== undefined
}

const count = statement<{ count: number }>('count-manifests', `select count(*) as count from manifest`)

/** Counts the stored manifests, for metrics. This is a scan: call it rarely. */
export async function countManifests(db: Queryable): Promise<number> {
  return (await one(db, count)).count
}
