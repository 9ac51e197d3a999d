// Registers of a repository in the form in which regions exchange them: what a peer returns for a miss, a comparison
// and a bootstrap. Each includes what is known of its event. For this region's own writes, its log tells.
//
// A point is one tag with its whole history and the manifests that the tag points to. Without a point, the whole
// repository is read, for small repositories and tests.

import type { Alive, Death, Events, Repository, TagVersion, Written } from '#shared/convergence/registers.ts'
import { emptyRepository, linkOf, manifestOf, mergeTag, NO_DEATH } from '#shared/convergence/registers.ts'
import type { Version } from '#shared/convergence/version.ts'
import { maybe, type Queryable, statement } from './statement.ts'

/**
 * For a row of this region, returns its positions in the log. [] if it was trimmed, because every live peer has passed
 * it.
 */
function eventsOf(row: string, register: string): string {
  return `coalesce(${row}.${register}events, (
    select jsonb_agg(jsonb_build_object('epoch', logged.epoch, 'seq', logged.seq) order by logged.epoch)
    from region
    join event_head as head on head.shard = -1
    join event_log as logged on logged.epoch = head.epoch and logged.outbox_id = ${row}.${register}written_id
    where ${row}.${register}origin = region.name), '[]')`
}

interface RepositoryRow {
  readonly id: number
  readonly alive_h: string
  readonly alive_origin: string
  readonly dead_h: string
  readonly dead_origin: string
  readonly dead_by: Omit<Death, 'version' | 'events'> | null
}

const repositoryRow = statement<RepositoryRow>(
  'registers-of-repository',
  `select id, alive_h::text, alive_origin, dead_h::text, dead_origin, dead_by from repository where name = :name`,
)

interface TagRow {
  readonly name: string
  readonly digest: string
  readonly h: string
  readonly origin: string
  readonly prev_h: string
  readonly prev_origin: string
  readonly alive: boolean
  readonly actor: string
  readonly at: Date
  readonly epoch: number
  readonly id: number
  readonly events: Events
}

const tagRows = statement<TagRow>(
  'registers-of-tags',
  `select was.name, was.digest, was.h::text, was.origin, was.prev_h::text, was.prev_origin, was.alive, was.actor, was.at,
     was.written_epoch as epoch, was.written_id as id, ${eventsOf('was', '')} as events
   from tag_history as was
   where was.repository_id = :id and (:tag::text is null or was.name = :tag)
   order by was.name, was.h, was.origin`,
)

interface MemberRow {
  readonly kind: 'manifest' | 'blob'
  readonly digest: string
  readonly media_type: string
  readonly alive_h: string
  readonly alive_origin: string
  readonly prev_h: string
  readonly prev_origin: string
  readonly epoch: number
  readonly written_id: number
  readonly events: Events
  readonly dead_h: string
  readonly dead_origin: string
  readonly dead_by: Omit<Death, 'version' | 'events'> | null
}

const memberRows = statement<MemberRow>(
  'registers-of-members',
  `select m.kind, m.digest, m.media_type, m.alive_h::text, m.alive_origin, m.alive_prev_h::text as prev_h,
     m.alive_prev_origin as prev_origin, m.alive_written_epoch as epoch, m.alive_written_id as written_id,
     ${eventsOf('m', 'alive_')} as events, m.dead_h::text, m.dead_origin, m.dead_by
   from membership as m
   where m.repository_id = :id and (:tag::text is null or m.kind = 'manifest' and m.digest in (
     select digest from tag where repository_id = :id and name = :tag))
   order by m.kind, m.digest`,
)

/** Returns the registers of a repository, for one tag or all. Returns undefined if the repository never existed. */
export async function readRegisters(
  db: Queryable,
  options: { repository: string; tag: string | null },
): Promise<Repository | undefined> {
  const { repository: name, tag } = options
  const row = await maybe(db, repositoryRow, { name })
  if (row === undefined) return undefined
  const repository = emptyRepository()
  repository.alive = versionOf(row.alive_h, row.alive_origin)
  repository.dead = deathOf(row)
  for (const member of await db.rows(memberRows, { id: row.id, tag })) {
    if (member.kind === 'manifest') {
      const register = manifestOf(repository, member.digest)
      register.alive = aliveOf(member)
      register.dead = deathOf(member)
    } else {
      const register = linkOf(repository, member.digest)
      register.alive = versionOf(member.alive_h, member.alive_origin)
      register.dead = deathOf(member)
    }
  }
  const alive = repository.alive
  for (const one of await db.rows(tagRows, { id: row.id, tag })) mergeTag(repository, one.name, tagOf(one))
  repository.alive = alive
  return repository
}

function versionOf(h: string, origin: string): Version {
  return { h: BigInt(h), origin }
}

function deathOf({
  dead_h: h,
  dead_origin: origin,
  dead_by: by,
}: Omit<RepositoryRow, 'id'> | MemberRow): Death {
  if (by === null) return { ...NO_DEATH, version: versionOf(h, origin) }
  const early = by.early.map(({ subject, value, version }) => ({
    subject,
    value,
    version: versionOf(String(version.h), version.origin),
  }))
  return { ...by, version: versionOf(h, origin), early, events: [] }
}

function aliveOf({ media_type: mediaType, ...row }: MemberRow): Alive {
  return {
    version: versionOf(row.alive_h, row.alive_origin),
    mediaType,
    prev: versionOf(row.prev_h, row.prev_origin),
    events: row.events,
    written: writtenOf(row.epoch, row.written_id),
  }
}

function tagOf({ digest, alive, actor, at, ...row }: TagRow): TagVersion {
  return {
    version: versionOf(row.h, row.origin),
    digest,
    alive,
    prev: versionOf(row.prev_h, row.prev_origin),
    events: row.events,
    written: writtenOf(row.epoch, row.id),
    by: { actor, at: at.toISOString() },
  }
}

function writtenOf(epoch: number, id: number): Written {
  return { epoch, id }
}
