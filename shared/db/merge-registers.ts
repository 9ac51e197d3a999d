// Merges registers of other regions into this region's rows: repositories, memberships and the links that follow from
// them. Set-based: a fixed number of statements, however many registers. Tags are in merge-tags.ts.
//
// It keeps the lock order of registers.ts. The first statement locks the repositories. The second locks every
// membership that the later ones may write, links included, in one pass. A repository that dies is locked FOR UPDATE,
// as by a delete. It is read whole, because its local `alive` must not be below anything in it. Merging writes no event
// and creates no version. A register takes the greater of the stored and the incoming value, by version, then by value,
// as in shared/convergence, so order and repetition do not matter.

import { BLOB_MEDIA_TYPE } from './blobs.ts'
import { manifestShows, repositoryShows, seenOfShard, versionOf } from './registers.ts'
import { type Queryable, statement } from './statement.ts'

/** A register's version, as in JSON. */
interface Version {
  readonly h: string
  readonly origin: string
}

export interface MergedRepository {
  readonly name: string
  readonly shard: number
  /** The greatest version among the registers that came with the repository. */
  readonly alive: Version
  readonly dead: Version
  /** JSON. null without a death. */
  readonly deadBy: unknown
}

export interface MergedMember {
  readonly repository: string
  readonly kind: 'manifest' | 'blob'
  readonly digest: string
  readonly mediaType: string
  readonly alive: Version
  readonly prev: Version
  readonly written: { readonly epoch: number; readonly id: number }
  /** null: not known. */
  readonly events: unknown
  readonly dead: Version
  readonly deadBy: unknown
}

/** Repository ids by name. */
export type RepositoryIds = ReadonlyMap<string, number>

const make = statement<never>(
  'merge-make-repositories',
  `insert into repository (name, shard, alive_h, alive_origin)
   select name, shard, 0, '' from jsonb_to_recordset(:rows::jsonb) as r (name text, shard smallint)
   order by name collate "C"
   on conflict (name) do nothing`,
)

const lockShared = statement<{ id: number; name: string }>(
  'merge-lock-repositories',
  `select id, name from repository where name = any (:names::text[]) order by name for key share`,
)

const lockWhole = statement<{ id: number; name: string }>(
  'merge-lock-dying-repositories',
  `select id, name from repository where name = any (:names::text[]) order by name for update`,
)

// A separate statement after the lock: it sees what pushes wrote before the lock was granted.
const bury = statement<never>(
  'merge-repository-deaths',
  `with came as (
     select r.id, c.* from jsonb_to_recordset(:rows::jsonb)
       as c (name text, dead_h bigint, dead_origin text, dead_by jsonb)
     join repository as r on r.name = c.name
     where c.dead_h > 0 and (c.dead_h, c.dead_origin collate "C") >= ${versionOf('r.dead')}
   )
   update repository as r
   set dead_by = case when ${versionOf('came.dead')} = ${versionOf('r.dead')}
         then both_deaths(r.dead_by, came.dead_by) else came.dead_by end,
     dead_h = came.dead_h, dead_origin = came.dead_origin,
     (alive_h, alive_origin) = (
       select made.h, made.origin from (
         select r.alive_h as h, r.alive_origin as origin
         union all select alive_h, alive_origin from membership where repository_id = r.id and kind = 'manifest'
         union all select h, origin from tag where repository_id = r.id) as made
       order by made.h desc, made.origin desc limit 1)
   from came
   where r.id = came.id`,
)

// Only if this makes a hidden repository visible: pushes into a repository share no row that is written each time.
const rise = statement<never>(
  'merge-revive-repositories',
  `update repository as r
   set alive_h = came.alive_h, alive_origin = came.alive_origin
   from jsonb_to_recordset(:rows::jsonb) as came (name text, alive_h bigint, alive_origin text)
   where r.name = came.name and not ${repositoryShows('r')}
     and (came.alive_h, came.alive_origin collate "C") > ${versionOf('r.alive')}`,
)

/** Creates, locks and merges the repositories. Returns their ids. */
export async function mergeRepositories(
  transaction: Queryable,
  repositories: readonly MergedRepository[],
): Promise<RepositoryIds> {
  const rows = JSON.stringify(
    repositories.map(({ name, shard, alive, dead, deadBy }) => ({
      name,
      shard,
      alive_h: alive.h,
      alive_origin: alive.origin,
      dead_h: dead.h,
      dead_origin: dead.origin,
      dead_by: deadBy,
    })),
  )
  const someDied = repositories.some(({ deadBy }) => deadBy !== null)
  await transaction.rows(make, { rows })
  const names = repositories.map(({ name }) => name)
  const locked = await transaction.rows(someDied ? lockWhole : lockShared, { names })
  if (someDied) await transaction.rows(bury, { rows })
  await transaction.rows(rise, { rows })
  return new Map(locked.map(({ id, name }) => [name, id]))
}

/** The manifests in `named` and those below them, four levels down. */
const BELOW = `
   below (repository_id, digest, depth) as (
     select repository_id, digest, 0 from named
     union
     select below.repository_id, child.digest, below.depth + 1
     from below join manifest_reference as child on child.manifest = below.digest and child.kind = 'child'
     where below.depth < 4
   )`

const MEMBERS = `jsonb_to_recordset(:rows::jsonb) as came (repository_id bigint, kind text, digest text,
  media_type text, alive_h bigint, alive_origin text, prev_h bigint, prev_origin text, written_epoch integer,
  written_id bigint, events jsonb, dead_h bigint, dead_origin text, dead_by jsonb)`

const lockMembers = statement<never>(
  'merge-lock-memberships',
  `with recursive named as (
     select repository_id, digest collate "C" as digest from ${MEMBERS} where kind = 'manifest'
   ),
   ${BELOW},
   wanted as (
     select repository_id, kind, digest from ${MEMBERS}
     union
     select below.repository_id, 'blob', blob.digest
     from below join manifest_reference as blob on blob.manifest = below.digest and blob.target = 'blob'
   )
   select from wanted
   join membership as m on m.repository_id = wanted.repository_id and m.kind = wanted.kind and m.digest = wanted.digest
   order by m.repository_id, m.kind, m.digest
   for no key update of m`,
)

const mergeMembers = statement<never>(
  'merge-memberships',
  `insert into membership as m (repository_id, kind, digest, media_type, alive_h, alive_origin, alive_prev_h,
     alive_prev_origin, alive_written_epoch, alive_written_id, alive_events, alive_early, dead_h, dead_origin, dead_by)
   select came.repository_id, came.kind, came.digest, came.media_type, alive_h, alive_origin, prev_h, prev_origin,
     written_epoch, written_id, events,
     alive_h > 0 and not :by_log::bool
       and (alive_origin = region.name or not is_seen(${seenOfShard(':shard')}, alive_origin, events)),
     dead_h, dead_origin, dead_by
   from ${MEMBERS} cross join region
   order by came.repository_id, came.kind collate "C", came.digest collate "C"
   on conflict (repository_id, kind, digest) do update
     set (media_type, alive_h, alive_origin, alive_prev_h, alive_prev_origin, alive_written_epoch, alive_written_id,
         alive_events, alive_early) = (
       select media_type, h, origin, prev_h, prev_origin, epoch, id,
         case when same.alive then both_events(m.alive_events, excluded.alive_events) else events end,
         case when same.alive then m.alive_early and excluded.alive_early else early end
       from (values
         (0, m.media_type, m.alive_h, m.alive_origin, m.alive_prev_h, m.alive_prev_origin, m.alive_written_epoch,
           m.alive_written_id,
           m.alive_events, m.alive_early),
         (1, excluded.media_type, excluded.alive_h, excluded.alive_origin, excluded.alive_prev_h,
           excluded.alive_prev_origin, excluded.alive_written_epoch, excluded.alive_written_id,
           excluded.alive_events, excluded.alive_early)
       ) as either (place, media_type, h, origin, prev_h, prev_origin, epoch, id, events, early)
       cross join (select ${versionOf('m.alive')} = ${versionOf('excluded.alive')}
         and m.media_type = excluded.media_type as alive) as same
       -- If both are the same, keeps the existing row.
       order by h desc, origin collate "C" desc, media_type collate "C" desc, epoch desc, id desc, place
       limit 1),
     dead_by = case when ${versionOf('m.dead')} = ${versionOf('excluded.dead')}
         then both_deaths(m.dead_by, excluded.dead_by)
       when ${versionOf('m.dead')} > ${versionOf('excluded.dead')} then m.dead_by else excluded.dead_by end,
     dead_h = greatest(m.dead_h, excluded.dead_h),
     dead_origin = case when ${versionOf('m.dead')} > ${versionOf('excluded.dead')}
       then m.dead_origin else excluded.dead_origin end`,
)

// Links follow from visibility: a blob that a visible manifest names is linked, whatever killed its link. This is
// judged in a statement after the merge, over everything that the merge may have changed: the manifests that came,
// those below them, those that name a blob whose link died, and everything in a repository that died.
const derive = statement<never>(
  'merge-derive-links',
  `with recursive named as (
     select repository_id, digest collate "C" as digest from ${MEMBERS} where kind = 'manifest'
     union
     select came.repository_id, naming.manifest
     from ${MEMBERS} join manifest_reference as naming on naming.digest = came.digest and naming.target = 'blob'
     where came.kind = 'blob'
     union
     select m.repository_id, m.digest from membership as m
     where m.repository_id = any (:died::bigint[]) and m.kind = 'manifest'
   ),
   ${BELOW},
   linked as (
     select distinct r.id, blob.digest, r.dead_h
     from below
     join repository as r on r.id = below.repository_id
     join membership as m on m.repository_id = r.id and m.kind = 'manifest' and m.digest = below.digest
     join manifest_reference as blob on blob.manifest = m.digest and blob.target = 'blob' and blob.required
     where ${manifestShows('m', 'r')}
   )
   insert into membership as m (repository_id, kind, digest, media_type, alive_h, alive_origin)
   select id, 'blob', digest, '${BLOB_MEDIA_TYPE}', dead_h + 1, '' from linked order by id, digest
   on conflict (repository_id, kind, digest) do update
     set alive_h = greatest(m.dead_h + 1, excluded.alive_h), alive_origin = ''
     where greatest(m.dead_h + 1, excluded.alive_h) > m.alive_h`,
)

/** Merges memberships, whose repositories are locked, and derives the links. `died`: repositories with a new death. */
export async function mergeMemberships(
  transaction: Queryable,
  options: {
    ids: RepositoryIds
    members: readonly MergedMember[]
    died: readonly string[]
    shard: number
    byLog: boolean
  },
): Promise<void> {
  const { ids, members, died, shard, byLog } = options
  const rows = JSON.stringify(
    members.map((one) => ({
      repository_id: ids.get(one.repository),
      kind: one.kind,
      digest: one.digest,
      media_type: one.mediaType,
      alive_h: one.alive.h,
      alive_origin: one.alive.origin,
      prev_h: one.prev.h,
      prev_origin: one.prev.origin,
      written_epoch: one.written.epoch,
      written_id: one.written.id,
      events: one.events,
      dead_h: one.dead.h,
      dead_origin: one.dead.origin,
      dead_by: one.deadBy,
    })),
  )
  if (members.length > 0) {
    await transaction.rows(lockMembers, { rows })
    await transaction.rows(mergeMembers, { rows, shard, by_log: byLog })
  }
  await transaction.rows(derive, { rows, died: died.map((name) => ids.get(name)) })
}
