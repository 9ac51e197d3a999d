// Repositories: made by the first write into them, dead when deleted, revived by the next push.

import type { RepositoryName } from '#shared/oci/reference.ts'
import { shardOf } from '#shared/oci/reference.ts'
import { type Provenance, provenanceParameters } from './provenance.ts'
import { EPOCH, lastOf, type WritePosition } from './registers.ts'
import { maybe, one, type Queryable, statement } from './statement.ts'

const ensure = statement<{ id: number }>(
  'ensure-repository',
  `insert into repository as r (name, shard, alive_h, alive_origin)
   values (:name, :shard, hlc_now(), :origin)
   on conflict (name) do update
     set alive_h = greatest(hlc_now(), r.dead_h + 1), alive_origin = excluded.alive_origin
     where (r.alive_h, r.alive_origin) <= (r.dead_h, r.dead_origin)
   returning id`,
)

/** Makes the repository, or revives it; does nothing to a live one. Two that race agree on one row. */
export async function ensureRepository(
  db: Queryable,
  options: { name: RepositoryName; origin: string },
): Promise<void> {
  await db.rows(ensure, { ...options, shard: shardOf(options.name) })
}

const exists = statement<{ found: boolean }>(
  'repository-exists',
  `select exists (
     select from repository
     where name = :name and (alive_h, alive_origin) > (dead_h, dead_origin)
   ) as found`,
)

export async function repositoryExists(db: Queryable, name: RepositoryName): Promise<boolean> {
  return (await one(db, exists, { name })).found
}

const lockForDeath = statement<{ id: number }>(
  'lock-repository-for-death',
  `select id from repository
   where name = :name and (alive_h, alive_origin) > (dead_h, dead_origin)
   for update`,
)

// A statement of its own, after the lock: it sees everything that pushes wrote before the lock was had.
const die = statement<{ outbox_id: number; epoch: number }>(
  'delete-repository',
  `with died as (
     update repository as r
     set dead_h = 1 + greatest(
           hlc_now(), r.alive_h, r.dead_h,
           (select max(greatest(alive_h, dead_h)) from membership where repository_id = r.id),
           (select max(h) from tag where repository_id = r.id)),
         dead_origin = :origin
     where id = :id
     returning name, shard, dead_h, dead_origin
   )
   insert into outbox (repository, shard, type, subject, payload, actor, request, traceparent, instance)
   select name, shard, 'dev.portolan.registry.repository.deleted.v1', name,
     jsonb_build_object('repository', name, 'version', jsonb_build_object('h', dead_h::text, 'origin', dead_origin)),
     :actor, :request::jsonb, :traceparent, :instance
   from died
   returning id as outbox_id, ${EPOCH} as epoch`,
)

/**
 * Everything in it dies at once, whatever its size; a later push revives the repository empty. undefined: not there.
 * Must run in a transaction of its own.
 */
export async function deleteRepository(
  transaction: Queryable,
  options: { name: RepositoryName; origin: string; provenance: Provenance },
): Promise<WritePosition | undefined> {
  const { name, origin, provenance } = options
  const locked = await maybe(transaction, lockForDeath, { name })
  if (locked === undefined) return undefined
  return lastOf(await transaction.rows(die, { id: locked.id, origin, ...provenanceParameters(provenance) }))
}
