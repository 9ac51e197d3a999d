// The region's own row: its name, its epoch, and what was found out about a restored database. What the row says of the
// server is in server.ts.

import { one, type Queryable, statement } from './statement.ts'

/** How long orphans are left alone after a restore: their bytes may belong to pushes newer than the backup. */
export const SWEEPS_PAUSED_SECONDS = 7 * 24 * 3600

const row = statement<{ name: string; epoch: number }>('region-row', `select name, epoch from region`)

export async function regionRow(db: Queryable): Promise<{ name: string; epoch: number }> {
  return one(db, row)
}

const raiseTo = statement<never>(
  'raise-epoch-to',
  `update region set epoch = :epoch,
     sweeps_paused_until = clock_timestamp() + make_interval(secs => :paused_seconds)`,
)

/** Raises the epoch because others have seen more of this region's log than its database knows. */
export async function raiseEpochTo(transaction: Queryable, epoch: number): Promise<void> {
  await transaction.rows(raiseTo, { epoch, paused_seconds: SWEEPS_PAUSED_SECONDS })
}

const compared = statement<{ compared: boolean }>(
  'log-compared',
  `select checked_start is not distinct from pg_postmaster_start_time() as compared from region`,
)

/** True when the log was compared with what Kafka holds since the database started: a restore needs a start. */
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

/** True while orphans must be left alone. */
export async function sweepsPaused(db: Queryable): Promise<boolean> {
  return (await one(db, paused)).paused
}
