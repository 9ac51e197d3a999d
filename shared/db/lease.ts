// Leases: one process at a time does a named piece of work. A session-scoped advisory lock on a connection of its own,
// so it is let go when the process dies, whatever it was doing.

import pg from 'pg'
import { connectionOptions } from './connect.ts'
import { refuseStandby } from './server.ts'

/** Our half of Postgres' two-key advisory locks; the other is the name's hash. */
const CLASS = 7_065_813

/** Runs the work if nobody else is at it; false when somebody is. Its signal says that the lease was lost. */
export async function withLease(
  url: string,
  name: string,
  work: (lost: AbortSignal) => Promise<void>,
): Promise<boolean> {
  const client = new pg.Client(connectionOptions(url))
  const lost = new AbortController()
  // The lock went with the connection.
  client.on('error', () => lost.abort())
  client.on('end', () => lost.abort())
  await client.connect()
  try {
    // A standby has locks of its own: a lease held there excludes nobody here.
    await refuseStandby(client)
    const { rows } = await client.query<{ held: boolean }>(
      'select pg_try_advisory_lock($1, hashtext($2)) as held',
      [CLASS, name],
    )
    if (rows[0]?.held !== true) return false
    await work(lost.signal)
    return true
  } finally {
    await client.end()
  }
}
