// Writes counted pulls into the outbox: one statement for everything that one process counted.

import { type RepositoryName, shardOf } from '#shared/oci/reference.ts'
import { type Queryable, statement } from './statement.ts'

const write = statement<never>(
  'write-pull-events',
  `insert into outbox (repository, shard, type, subject, payload, actor, request, instance)
   select p.repository, p.shard, 'dev.portolan.registry.pull.v1', p.repository || '@' || (p.payload ->> 'digest'),
     p.payload || jsonb_build_object('from', :from::text, 'until', :until::text), '', '{}'::jsonb, :instance
   from unnest(:repositories::text[], :shards::smallint[], :payloads::jsonb[]) with ordinality
     as p (repository, shard, payload, place)
   order by p.place`,
)

/** Adds one event for each counted pull. `from` and `until` bound the time in which the pulls happened. */
export async function writePullEvents(
  db: Queryable,
  options: {
    pulls: readonly { repository: RepositoryName; count: number }[]
    from: Date
    until: Date
    instance: string
  },
): Promise<void> {
  const { pulls, from, until, instance } = options
  await db.rows(write, {
    repositories: pulls.map(({ repository }) => repository),
    shards: pulls.map(({ repository }) => shardOf(repository)),
    payloads: pulls.map((pull) => JSON.stringify(pull)),
    from: from.toISOString(),
    until: until.toISOString(),
    instance,
  })
}
