// Which database server this is, checked on every new connection and in every move of the outbox.
//
// A promoted standby, a restored backup and a dump in another cluster may lack the last writes, whose event numbers and
// positions are known outside. Such a server is recognised by its system identifier, by the timeline it writes now (not
// the last checkpoint's, which lags behind a promotion), and by its start time. The region row holds the values that
// were seen last. A difference is recorded before the connection is used, so no write of the new server gets a number
// from before it:
//
// - Another system identifier or timeline raises the epoch, by the number of timelines between: a promotion that this
//   server's data does not contain may have raised it too. Sweeps pause.
// - Any new start moves the outbox id forward, by 2^32 and at least to the clock's milliseconds * 2^10. A backup that
//   is started as if it had crashed is not recognised here, but even then no position is given twice. The clock
//   separates two servers that jumped from the same data.
//
// The row's lock makes this happen once, however many connections see the difference. A server in recovery is refused:
// its data is old, and it may be promoted during the connection. The check costs one query, which takes no transaction
// id.

import type pg from 'pg'
import { LAST_WRITE, SWEEPS_PAUSED_SECONDS } from './region.ts'
import { bind, maybe, one, type Queryable, statement } from './statement.ts'

/** The server cannot be used now. It may be the primary when it is checked again later. */
export class StandbyError extends Error {
  override readonly name = 'StandbyError'
  /** cannot_connect_now: callers treat it as a server that is not up yet. */
  readonly code = '57P03'

  constructor() {
    super('the database server is a standby (in recovery): Portolan needs the primary')
  }
}

const THIS_SERVER = `
  select pg_is_in_recovery() as in_recovery, pg_postmaster_start_time() as start,
    (select system_identifier::text from pg_control_system()) as identifier,
    case when not pg_is_in_recovery()
      then ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer end as timeline`

const look = statement<{ in_recovery: boolean; known: boolean }>(
  'look-at-server',
  `select server.in_recovery,
     (region.system_identifier, region.timeline, region.server_start)
       is not distinct from (server.identifier, server.timeline, server.start) as known
   from region cross join (${THIS_SERVER}) as server`,
)

const lockRegion = statement<never>('lock-region', 'select from region for update')

const record = statement<{ epoch: number | null; last_id: number | null }>(
  'record-server',
  `with before as (
     select region.epoch, server.*,
       region.system_identifier <> server.identifier or region.timeline <> server.timeline as other,
       server.timeline - region.timeline as timelines,
       -- A database without a recorded server is new and has given out nothing.
       region.timeline is not null or region.system_identifier <> server.identifier as used
     from region cross join (${THIS_SERVER}) as server
     where (region.system_identifier, region.timeline, region.server_start)
       is distinct from (server.identifier, server.timeline, server.start)
   ),
   recorded as (
     update region set
       epoch = case when before.other then before.epoch + greatest(1, before.timelines) else region.epoch end,
       lineage = case when before.other
         then lineage || jsonb_build_object('epoch', region.epoch, 'id', ${LAST_WRITE}) else lineage end,
       sweeps_paused_until = case when before.other
         then clock_timestamp() + make_interval(secs => :paused_seconds) else region.sweeps_paused_until end,
       system_identifier = before.identifier, timeline = before.timeline, server_start = before.start
     from before
     returning case when before.other then region.epoch end as epoch, before.used
   )
   select recorded.epoch, jumped.last_id
   from recorded
   left join lateral (
     select setval(ids.name, greatest(
       coalesce(pg_sequence_last_value(ids.name), 0) + (1::bigint << 32),
       (extract(epoch from clock_timestamp()) * 1000)::bigint << 10)) as last_id
     from (select pg_get_serial_sequence('outbox', 'id')::regclass as name) as ids
     where recorded.used
   ) as jumped on true`,
)

/**
 * Records the server, if it is not the one that was seen last, in the caller's transaction. Returns the epoch if it was
 * raised.
 * @throws StandbyError
 */
export async function recordServer(transaction: Queryable): Promise<number | undefined> {
  const { in_recovery: inRecovery, known } = await one(transaction, look)
  if (inRecovery) throw new StandbyError()
  if (known) return undefined
  // A separate statement after the lock: another connection may have just recorded the server.
  await transaction.rows(lockRegion)
  const recorded = await maybe(transaction, record, { paused_seconds: SWEEPS_PAUSED_SECONDS })
  return recorded?.epoch ?? undefined
}

/**
 * Run it on each new connection before the connection is used.
 * @throws StandbyError
 */
export type ServerCheck = (client: pg.ClientBase) => Promise<void>

export function createServerCheck(options: { onRaised(epoch: number): void }): ServerCheck {
  return async (client) => {
    const db = statementsOn(client)
    const { in_recovery: inRecovery, known } = await one(db, look)
    if (inRecovery) throw new StandbyError()
    if (known) return
    await client.query('begin')
    // If this rejects, the connection is closed, which rolls back.
    const raised = await recordServer(db)
    await client.query('commit')
    if (raised !== undefined) options.onRaised(raised)
  }
}

function statementsOn(client: pg.ClientBase): Queryable {
  return {
    async rows({ name, text, parameters }, values = {}) {
      const result = await client.query({ name, text, values: bind({ name, text, parameters }, values) })
      return result.rows
    },
  }
}

/**
 * For connections that only hold a lock.
 * @throws StandbyError
 */
export async function refuseStandby(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ standby: boolean }>('select pg_is_in_recovery() as standby')
  if (rows[0]?.standby !== false) throw new StandbyError()
}
