// The registers: the one order in which every writer locks rows, and the SQL that several writers share.
//
// The order:
//
//   1. repository    by name
//   2. upload        the one session that a commit ends
//   3. membership    by kind ('blob' before 'manifest'), then digest
//   4. blob          by digest
//   5. manifest      by digest, with its references
//   6. tag           by name
//   7. setting       by kind, id, field
//
// A writer may leave stages out and never goes back. Then no circle of waiting can form, and Postgres has no deadlock
// to break. A deadlock costs its victims a second each, and with eight clients on shared layers there were more of
// them than mounts. What makes a statement keep the order:
//
// - Parts of one statement run in the order in which their data depends on each other, and in no other. Each stage reads
//   the one before it *whole*, by a count in its condition: a join alone may take the stages row by row in turn.
// - Rows of one stage are locked in sorted order: `order by` with the locking clause at one level of a query sorts first,
//   `insert ... select ... order by ... on conflict` follows the select.
// - One pass takes all rows of a stage, in the strongest mode that any of them needs. Rows that may not exist yet are
//   inserted after those that exist were locked.
// - A row whose state decides an earlier stage is judged by the snapshot, locked in its own stage, and compared. If it
//   changed, `begin_again` undoes the statement and it runs again.
//
// The outbox comes after all of them: an event's id is drawn while the locks of what it tells of are held.
//
// A snapshot is older than the locks its statement waits for. After a wait, Postgres looks at the new version of the
// row that was locked and at the *old* versions of every row joined to it. So a condition that joins a locked row to
// others is judged in a later statement of the transaction, which has a snapshot of its own. A condition that fails on
// one statement's snapshot alone, without any lock, has failed: at that moment it did not hold.
//
// What several writers and readers share is written here once, as functions that return SQL. A register is named by
// the prefix of its columns: `m.alive` stands for `m.alive_h` and `m.alive_origin`, `t` for `t.h` and `t.origin`.
// shared/convergence says the same in TypeScript; test/shared/db/register-order.test.ts and test/simulation compare them.

/**
 * Where a write stands among its region's writes: what `Portolan-Position` is made of. The epoch comes from the
 * statement that wrote: one that was read earlier may be over, and its numbers may have been given to others.
 */
export interface WritePosition {
  readonly epoch: number
  readonly outboxId: number
}

/** The position of the last of the events that a statement recorded. There is at least one. */
export function lastOf(events: readonly { outbox_id: number; epoch: number }[]): WritePosition {
  const epoch = events[0]?.epoch
  if (epoch === undefined) throw new Error('a write recorded no event')
  return { epoch, outboxId: Math.max(...events.map(({ outbox_id }) => outbox_id)) }
}

/** A register's version as a row: such rows compare by h first, then by the origin's bytes, as versions do. */
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

/** The register of a membership by itself, whatever names it. */
export function isAlive(member: string, repository: string): string {
  return isAbove(`${member}.alive`, member, repository)
}

/** A repository's link to a blob, as the membership `link`. */
export function linkShows(link: string, repository: string): string {
  return isAlive(link, repository)
}

/** A membership of either kind. */
export function memberShows(member: string, repository: string): string {
  return `(case ${member}.kind when 'blob' then ${linkShows(member, repository)}
    else ${manifestShows(member, repository)} end)`
}

/**
 * A manifest, as the membership `member`, shows while it is above its death and its repository's, or while an index that
 * shows names it. Indexes are looked at only where the membership itself is dead, by a function of the database: written
 * out, four levels of them would be set up by every pull and every push.
 */
export function manifestShows(member: string, repository: string): string {
  return `(${isAlive(member, repository)}
    or ${member}.alive_h > 0 and kept_by_index(${member}.repository_id, ${member}.digest))`
}

/** A tag shows while it is alive, above both deaths, and its manifest, the membership `member`, shows. */
export function tagShows(tag: string, member: string, repository: string): string {
  return `(${tag}.alive and ${isAbove(tag, member, repository)} and ${manifestShows(member, repository)})`
}

/**
 * The epoch now, for the answer of a statement that writes. A subquery and never a join: Postgres takes the table of one
 * row for one of hundreds, and plans a push anew each time because of it.
 */
export const EPOCH = '(select epoch from region)'

/** The live repository of :repository, which cannot die before the transaction ends. */
export const LIVE_REPOSITORY = `
  select r.id, r.dead_h, r.dead_origin, ${EPOCH} as epoch
  from repository as r
  where r.name = :repository and ${repositoryShows('r')}
  for key share of r`

/** Of a membership `m` that is there: a version above all that the row has, computed under its lock. */
export const ALIVE_AGAIN = `
  alive_h = greatest(hlc_now(), excluded.alive_h, m.alive_h + 1, m.dead_h + 1),
  alive_origin = excluded.alive_origin,
  alive_prev_h = greatest(m.alive_h, m.dead_h),
  alive_prev_origin = case when ${versionOf('m.alive')} >= ${versionOf('m.dead')}
    then m.alive_origin else m.dead_origin end`

/**
 * True, or the statement begins again: for what was counted by the snapshot and has to be the same under the locks.
 */
export function sameCount(locked: string, judged: string, otherwise: string): string {
  return `case when (select count(*) from ${locked}) = (select count(*) from ${judged})
    then true else begin_again('${otherwise}') end`
}

/** The next event's id, drawn while the row that it tells of is locked. */
export const NEXT_EVENT_ID = `nextval('outbox_id_seq')`

/** What a write's own region calls it, as an event and a death tell it. */
function writtenAs(id: string, epoch = EPOCH): string {
  return `jsonb_build_object('epoch', ${epoch}, 'id', ${id})`
}

/** A version as events tell it. */
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
 * What a death tells of what its region knew: the logs that it had applied, what it kills that was told before its event
 * came, and what the region calls it. `targets`: a query of the early ones, as subject,
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
 * The events of a statement, numbered in the order of their place and name when all of its locks are held. `events` is a
 * query of place, name (the tag, where an event tells of one), id (null: drawn here), epoch, type, subject, payload,
 * content, and the repository where they are of several.
 */
export function numbered(events: string, repository = ':repository'): string {
  return `select e.place, e.name, coalesce(e.id, ${NEXT_EVENT_ID}) as id, e.epoch,
      ${repository} as repository, e.type, e.subject, e.payload, e.content
    from (${events}) as e
    order by e.place, e.name collate "C"`
}

/** Records the events of the query `events`, which is `numbered`. Returns each one's id. */
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

/** What a statement that writes tags, as `t`, returns of them. */
export const RETURNING_TAG = `returning ${TAG_COLUMNS.replaceAll(/\w+/g, 't.$&')}`

/**
 * Every version of a tag has its row in the history, made by the statement that made the version. `events` names the
 * query of the statement's events, of which those with a tag's name tell of the versions.
 */
export function tagHistoryFrom(written: string, events: string): string {
  return `insert into tag_history (${TAG_COLUMNS}, written_epoch, written_id)
    select ${TAG_COLUMNS.replaceAll(/\w+/g, 'w.$&')}, event.epoch, event.id
    from ${written} as w join ${events} as event on event.name = w.name
    order by w.name`
}
