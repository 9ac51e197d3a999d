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

/** The live repository of :repository, which cannot die before the transaction ends. */
export const LIVE_REPOSITORY = `
  select id, dead_h, dead_origin from repository
  where name = :repository and (alive_h, alive_origin) > (dead_h, dead_origin)
  for key share`

/** The epoch now, for the answer of a statement that writes. */
export const EPOCH = '(select epoch from region)'

/** Of a membership `m` that is there: a version above all that the row has, computed under its lock. */
export const ALIVE_AGAIN = `
  alive_h = greatest(hlc_now(), excluded.alive_h, m.alive_h + 1, m.dead_h + 1),
  alive_origin = excluded.alive_origin,
  alive_prev_h = greatest(m.alive_h, m.dead_h),
  alive_prev_origin = case when (m.alive_h, m.alive_origin) >= (m.dead_h, m.dead_origin)
    then m.alive_origin else m.dead_origin end`

const TAG_COLUMNS = 'repository_id, name, digest, h, origin, prev_h, prev_origin, alive, actor, at'

/** What a statement that writes tags, as `t`, returns of them. */
export const RETURNING_TAG = `returning ${TAG_COLUMNS.replaceAll(/\w+/g, 't.$&')}`

/** Every version of a tag has its row in the history, made by the statement that made the version. */
export function tagHistoryFrom(written: string): string {
  return `insert into tag_history (${TAG_COLUMNS}) select ${TAG_COLUMNS} from ${written} order by name`
}
