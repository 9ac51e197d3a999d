// The region's own row: its name, its epoch, and what was found out about a restored database. server.ts describes what
// the row records about the server.

import { one, type Queryable, statement } from './statement.ts'

/** How long orphans are kept after a restore: their bytes may belong to pushes newer than the backup. */
export const SWEEPS_PAUSED_SECONDS = 7 * 24 * 3600

const row = statement<{ name: string; epoch: number }>('region-row', `select name, epoch from region`)

export async function regionRow(db: Queryable): Promise<{ name: string; epoch: number }> {
  return one(db, row)
}

/** The last write that this database knows. Not taken from a sequence, because a start moves sequences forward. */
export const LAST_WRITE = `greatest(0, trimmed_outbox_id, (select max(id) from outbox),
  (select outbox_id from event_log order by epoch desc, pos desc limit 1))`

const raiseTo = statement<never>(
  'raise-epoch-to',
  // Stores the ending epoch with the last write of it that this database has (shared/convergence, `Death`).
  `update region set epoch = :epoch,
     lineage = lineage || jsonb_build_object('epoch', epoch, 'id', ${LAST_WRITE}),
     sweeps_paused_until = clock_timestamp() + make_interval(secs => :paused_seconds)`,
)

/** Raises the epoch because other regions have seen more of this region's log than its database knows. */
export async function raiseEpochTo(transaction: Queryable, epoch: number): Promise<void> {
  await transaction.rows(raiseTo, { epoch, paused_seconds: SWEEPS_PAUSED_SECONDS })
}

const compared = statement<{ compared: boolean }>(
  'log-compared',
  `select checked_start is not distinct from pg_postmaster_start_time() as compared from region`,
)

/** True if the log was compared with what Kafka holds since the database started. A restore requires a start. */
export async function logWasCompared(db: Queryable): Promise<boolean> {
  return (await one(db, compared)).compared
}

const setCompared = statement<never>(
  'set-log-compared',
  `update region set checked_start = pg_postmaster_start_time()`,
)

export async function setLogCompared(db: Queryable): Promise<void> {
  await db.rows(setCompared)
}

const paused = statement<{ paused: boolean }>(
  'sweeps-paused',
  `select coalesce(sweeps_paused_until > clock_timestamp(), false) as paused from region`,
)

/** True while orphans must not be removed. */
export async function sweepsPaused(db: Queryable): Promise<boolean> {
  return (await one(db, paused)).paused
}
