// The registers: the one order in which every writer locks rows, and the SQL that several writers share.
//
// The order:
//
// 1. repository    by name
// 2. upload        the one session that a commit ends
// 3. membership    by kind ('blob' before 'manifest'), then digest
// 4. blob          by digest
// 5. manifest      by digest, with its references
// 6. tag           by name
// 7. setting       by kind, id, field
//
// A writer may skip stages and never goes back. No cycle of waits can then form, and Postgres has no deadlock to break.
// A deadlock costs its victims a second each, and with eight clients on shared layers there were more deadlocks than
// mounts. These rules keep a statement in order:
//
// - Parts of one statement run in the order of their data dependencies, and in no other. Each stage reads the previous
//   stage *whole*, by a count in its condition: a join alone may interleave the rows of two stages.
// - Rows of one stage are locked in sorted order. `order by` with the locking clause at one level of a query sorts
//   first, and `insert ... select ... order by ... on conflict` follows the select.
// - One pass takes all rows of a stage, in the strongest mode that any of them needs. Rows that may not exist yet are
//   inserted after the existing rows were locked.
// - A row whose state decides an earlier stage is judged by the snapshot, locked in its own stage, and compared. If it
//   changed, `begin_again` undoes the statement and it runs again.
//
// The outbox comes last: an event's id is drawn while the locks of what it tells of are held.
//
// A snapshot is older than the locks that its statement waits for. After a wait, Postgres reads the new version of the
// row that was locked and the *old* versions of every row joined to it. A condition that joins a locked row to others
// is therefore judged in a later statement of the transaction, which has a new snapshot. If a condition fails on one
// statement's snapshot alone, without any lock, it has failed: at that moment it did not hold.
//
// SQL that several writers and readers share is written here once, as functions that return SQL. A register is named by
// the prefix of its columns: `m.alive` means `m.alive_h` and `m.alive_origin`, and `t` means `t.h` and `t.origin`.
// shared/convergence has the same rules in TypeScript. test/shared/db/register-order.test.ts and test/simulation
// compare the two.

/**
 * The position of a write among its region's writes, from which `Portolan-Position` is made. The epoch comes from the
 * statement that wrote. An epoch that was read earlier may be over, and its numbers may have been given to other
 * writes.
 */
export interface WritePosition {
  readonly epoch: number
  readonly outboxId: number
}

/** Returns the position of the last of the events that a statement recorded. There is at least one. */
export function lastOf(events: readonly { outbox_id: number; epoch: number }[]): WritePosition {
  const epoch = events[0]?.epoch
  if (epoch === undefined) throw new Error('a write recorded no event')
  return { epoch, outboxId: Math.max(...events.map(({ outbox_id }) => outbox_id)) }
}

/** A register's version as a row. Such rows compare by h first, then by the origin's bytes, as versions do. */
export function versionOf(register: string): string {
  return `(${column(register, 'h')}, ${column(register, 'origin')})`
}

function column(register: string, name: 'h' | 'origin'): string {
  return register.includes('.') ? `${register}_${name}` : `${register}.${name}`
}

/** True while the register is newer than the death of its membership and of its repository. */
export function isAbove(register: string, member: string, repository: string): string {
  return `(${versionOf(register)} > ${versionOf(`${member}.dead`)}
    and ${versionOf(register)} > ${versionOf(`${repository}.dead`)})`
}

export function repositoryShows(repository: string): string {
  return `${versionOf(`${repository}.alive`)} > ${versionOf(`${repository}.dead`)}`
}

/** True if the membership's own register is alive, whatever names the membership. */
export function isAlive(member: string, repository: string): string {
  return isAbove(`${member}.alive`, member, repository)
}

/** True if a repository's link to a blob, the membership `link`, is visible. */
export function linkShows(link: string, repository: string): string {
  return isAlive(link, repository)
}

/** True if a membership of either kind is visible. */
export function memberShows(member: string, repository: string): string {
  return `(case ${member}.kind when 'blob' then ${linkShows(member, repository)}
    else ${manifestShows(member, repository)} end)`
}

/**
 * A manifest, as the membership `member`, is visible while it is above its death and its repository's, or while a
 * visible index names it. Indexes are examined only if the membership itself is dead, by a function of the database: if
 * they were written out, every pull and every push would set up four levels of them.
 */
export function manifestShows(member: string, repository: string): string {
  return `(${isAlive(member, repository)}
    or ${member}.alive_h > 0 and kept_by_index(${member}.repository_id, ${member}.digest))`
}

/** A tag is visible while it is alive, above both deaths, and its manifest, the membership `member`, is visible. */
export function tagShows(tag: string, member: string, repository: string): string {
  return `(${tag}.alive and ${isAbove(tag, member, repository)} and ${manifestShows(member, repository)})`
}

/**
 * The current epoch, for the result of a statement that writes. Always a subquery and never a join: Postgres estimates
 * hundreds of rows for the table of one row, and plans a push anew each time because of it.
 */
export const EPOCH = '(select epoch from region)'

/** The live repository of :repository, which cannot die before the transaction ends. */
export const LIVE_REPOSITORY = `
  select r.id, r.dead_h, r.dead_origin, ${EPOCH} as epoch
  from repository as r
  where r.name = :repository and ${repositoryShows('r')}
  for key share of r`

/** For an existing membership `m`: a version above everything that the row has, computed under its lock. */
export const ALIVE_AGAIN = `
  alive_h = greatest(hlc_now(), excluded.alive_h, m.alive_h + 1, m.dead_h + 1),
  alive_origin = excluded.alive_origin,
  alive_prev_h = greatest(m.alive_h, m.dead_h),
  alive_prev_origin = case when ${versionOf('m.alive')} >= ${versionOf('m.dead')}
    then m.alive_origin else m.dead_origin end`

/**
 * True, or the statement begins again. For a count that was taken by the snapshot and must be the same under the locks.
 */
export function sameCount(locked: string, judged: string, otherwise: string): string {
  return `case when (select count(*) from ${locked}) = (select count(*) from ${judged})
    then true else begin_again('${otherwise}') end`
}

/** The next event's id, drawn while the row that the event tells of is locked. */
export const NEXT_EVENT_ID = `nextval('outbox_id_seq')`

/** How a write's own region identifies it, as events and deaths include it. */
function writtenAs(id: string, epoch = EPOCH): string {
  return `jsonb_build_object('epoch', ${epoch}, 'id', ${id})`
}

/** A version in the form that events use. */
export function versionJson(register: string): string {
  return `jsonb_build_object('h', ${column(register, 'h')}::text, 'origin', ${column(register, 'origin')})`
}

/** How far this region has applied each origin's log of a shard, in each epoch, as JSON. */
export function seenOfShard(shard: string): string {
  return `(
    select coalesce(jsonb_object_agg(known.origin, known.places), '{}')
    from (
      select place.origin, jsonb_agg(jsonb_build_object('epoch', place.epoch, 'seq', place.seq)
        order by place.epoch) as places
      from (
        select origin, epoch, seq from peer_cursor where shard = ${shard}
        union all
        select origin, epoch, seq from peer_epoch where shard = ${shard}) as place
      group by place.origin) as known)`
}

/**
 * What a death records of its region's knowledge: the logs that it had applied, what the death kills that was told
 * before its event came, and how the region identifies the death. `targets`: a query of the early versions, as subject,
 * value, h and origin (shared/convergence, `EarlyVersion`). `id`: drawn while the row is locked.
 */
export function deathKnowing({ shard, targets, id }: { shard: string; targets: string; id: string }): string {
  return `jsonb_build_object(
    'seen', ${seenOfShard(shard)},
    'early', (
      select coalesce(jsonb_agg(jsonb_build_object('subject', target.subject,
        'value', target.value,
        'version', jsonb_build_object('h', target.h::text, 'origin', target.origin))), '[]')
      from (${targets}) as target),
    'written', ${writtenAs(id)},
    'lineage', (select lineage from region) || ${writtenAs(id)})`
}

/**
 * The events of a statement, numbered in the order of place and name when all of its locks are held. `events` is a
 * query of place, name (the tag, if the event tells of one), id (null: drawn here), epoch, type, subject, payload,
 * content, and the repository if the events are of several.
 */
export function numbered(events: string, repository = ':repository'): string {
  return `select e.place, e.name, coalesce(e.id, ${NEXT_EVENT_ID}) as id, e.epoch,
      ${repository} as repository, e.type, e.subject, e.payload, e.content
    from (${events}) as e
    order by e.place, e.name collate "C"`
}

/** Records the events of the query `events`, which is `numbered`. Returns the id of each. */
export function recorded(events: string): string {
  return `insert into outbox
      (id, repository, shard, type, subject, payload, content, actor, request, traceparent, instance)
    overriding system value
    select id, repository, :shard, type, subject,
      payload || jsonb_build_object('written', ${writtenAs('id', 'epoch')}), content,
      :actor, :request::jsonb, :traceparent, :instance
    from ${events}
    returning id as outbox_id`
}

const TAG_COLUMNS = 'repository_id, name, digest, h, origin, prev_h, prev_origin, alive, actor, at'

/** The RETURNING clause of a statement that writes tags, as `t`. */
export const RETURNING_TAG = `returning ${TAG_COLUMNS.replaceAll(/\w+/g, 't.$&')}`

/**
 * Every version of a tag has a row in the history, written by the statement that made the version. `events` names the
 * query of the statement's events. Those with a tag's name tell of the versions.
 */
export function tagHistoryFrom(written: string, events: string): string {
  return `insert into tag_history (${TAG_COLUMNS}, written_epoch, written_id)
    select ${TAG_COLUMNS.replaceAll(/\w+/g, 'w.$&')}, event.epoch, event.id
    from ${written} as w join ${events} as event on event.name = w.name
    order by w.name`
}
