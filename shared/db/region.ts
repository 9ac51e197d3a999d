// The region's own row: its name, its epoch, and what tells whether the database was restored.

import { maybe, one, type Queryable, statement } from './statement.ts'

/** How long orphans are left alone after a restore: their bytes may belong to pushes newer than the backup. */
const SWEEPS_PAUSED_SECONDS = 7 * 24 * 3600

const row = statement<{ name: string; epoch: number }>('region-row', `select name, epoch from region`)

export async function regionRow(db: Queryable): Promise<{ name: string; epoch: number }> {
  return one(db, row)
}

const raise = statement<{ epoch: number }>(
  'raise-epoch',
  `update region
   set epoch = case when known then epoch + 1 else epoch end,
     sweeps_paused_until = case when known
       then clock_timestamp() + make_interval(secs => :paused_seconds) else sweeps_paused_until end,
     system_identifier = now_is.identifier, timeline = now_is.timeline
   from (
     select system.system_identifier::text as identifier, checkpoint.timeline_id as timeline,
       region.timeline is not null or region.system_identifier <> system.system_identifier::text as known
     from pg_control_system() as system cross join pg_control_checkpoint() as checkpoint cross join region
   ) as now_is
   where region.system_identifier <> now_is.identifier or region.timeline is distinct from now_is.timeline
   returning case when known then epoch end as epoch`,
)

/**
 * Compares the database with what it was when last seen. A dump read into a new cluster, a base backup that was
 * promoted and a standby that took over may lack the last writes, whose numbers peers and readers know already: the
 * epoch is raised, so that no number is given twice. Returns the new epoch, undefined when nothing happened.
 * A copy of the files that is simply started again cannot be told from a crash here.
 */
export async function raiseEpochIfRestored(db: Queryable): Promise<number | undefined> {
  const raised = await maybe(db, raise, { paused_seconds: SWEEPS_PAUSED_SECONDS })
  return raised?.epoch ?? undefined
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
