// Repositories: created by the first write into them, dead when deleted, revived by the next push.

import type { RepositoryName } from '#shared/oci/reference.ts'
import { shardOf } from '#shared/oci/reference.ts'
import { type Provenance, provenanceParameters } from './provenance.ts'
import {
  deathKnowing,
  EPOCH,
  lastOf,
  NEXT_EVENT_ID,
  numbered,
  recorded,
  repositoryShows,
  versionJson,
  type WritePosition,
} from './registers.ts'
import { maybe, one, type Queryable, statement } from './statement.ts'

const ensure = statement<{ id: number }>(
  'ensure-repository',
  `insert into repository as r (name, shard, alive_h, alive_origin)
   values (:name, :shard, hlc_now(), :origin)
   on conflict (name) do update
     set alive_h = greatest(hlc_now(), r.dead_h + 1), alive_origin = excluded.alive_origin
     where not ${repositoryShows('r')}
   returning id`,
)

/** Creates or revives the repository. Does nothing to a live one. Two concurrent calls agree on one row. */
export async function ensureRepository(
  db: Queryable,
  options: { name: RepositoryName; origin: string },
): Promise<void> {
  await db.rows(ensure, { ...options, shard: shardOf(options.name) })
}

const exists = statement<{ found: boolean }>(
  'repository-exists',
  `select exists (
     select from repository as r where name = :name and ${repositoryShows('r')}
   ) as found`,
)

export async function repositoryExists(db: Queryable, name: RepositoryName): Promise<boolean> {
  return (await one(db, exists, { name })).found
}

const lockForDeath = statement<{ id: number }>(
  'lock-repository-for-death',
  `select id from repository as r
   where name = :repository and ${repositoryShows('r')}
   for update`,
)

// A separate statement after the lock: it sees everything that pushes wrote before the lock was granted.
const die = statement<{ outbox_id: number; epoch: number }>(
  'delete-repository',
  `with died as (
     update repository as r
     set dead_h = 1 + greatest(
           hlc_now(), r.alive_h, r.dead_h,
           (select max(greatest(alive_h, dead_h)) from membership where repository_id = r.id),
           (select max(h) from tag where repository_id = r.id)),
         dead_origin = :origin,
         dead_by = ${deathKnowing({
           shard: 'r.shard',
           id: 'drawn.id',
           targets: `
             select digest as subject, '' as value, alive_h as h, alive_origin as origin from membership
             where repository_id = r.id and kind = 'manifest' and alive_early
             union all
             select name, digest || ' ' || alive, h, origin from tag_history where repository_id = r.id and early`,
         })}
     from (select ${NEXT_EVENT_ID} as id) as drawn
     where r.id = :id
     returning r.*
   ),
   event as (${numbered(`
     select 0 as place, null as name, (dead_by #>> '{written,id}')::bigint as id, ${EPOCH} as epoch,
       'dev.portolan.registry.repository.deleted.v1' as type, name as subject,
       jsonb_build_object('repository', name, 'version', ${versionJson('died.dead')}) || dead_by as payload,
       null::bytea as content
     from died`)}
   ),
   recorded as (${recorded('event')})
   select outbox_id, ${EPOCH} as epoch from recorded`,
)

/**
 * Everything in the repository dies at once, whatever its size. A later push revives the repository empty. Returns
 * undefined if it does not exist. Must run in its own transaction.
 */
export async function deleteRepository(
  transaction: Queryable,
  options: { name: RepositoryName; origin: string; provenance: Provenance },
): Promise<WritePosition | undefined> {
  const { name: repository, origin, provenance } = options
  const locked = await maybe(transaction, lockForDeath, { repository })
  if (locked === undefined) return undefined
  const parameters = { id: locked.id, repository, shard: shardOf(repository), origin }
  return lastOf(await transaction.rows(die, { ...parameters, ...provenanceParameters(provenance) }))
}
