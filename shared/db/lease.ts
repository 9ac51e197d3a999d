// Leases: only one process at a time does a named piece of work. A lease is a session-scoped advisory lock on a
// dedicated connection that the holder has to keep alive. Postgres ends a session that is silent for 5 s
// (`idle_session_timeout`), and releases the lock with it. A holder that dies, is frozen or is cut off therefore frees
// the lease within seconds, and no process has to judge who is alive.
//
// The holder detects the loss by itself. The signal aborts when the connection ends, when a heartbeat is not answered,
// or when more time has passed than the server waits. After a freeze, other code may run before any timer does, so work
// calls `requireHeld` right before each step that must not happen twice. Elapsed time is the greater of two clocks,
// because the monotonic clock stands still while a virtual machine is suspended. A freeze between the call and the step
// remains possible. Work under a lease must therefore be harmless, and only wasteful, when it is done twice.
//
// Needs a session: behind a transaction pooler a heartbeat comes from another backend, which ends the lease.

import type pg from 'pg'
import { meansUnreachable, UnreachableError } from './failures.ts'
import { refuseStandby } from './server.ts'
import { endSession, limitsOf, openSession } from './session.ts'

/** Our key of Postgres' two-key advisory locks. The other key is the hash of the name. */
const CLASS = 7_065_813
/** Number of heartbeats in the time after which the server ends a silent session. */
const BEATS = 4

export class LeaseLostError extends Error {
  override readonly name = 'LeaseLostError'
}

export interface Held {
  /**
   * Call it before each step that other processes might do too.
   * @throws LeaseLostError if the lease is lost or may be lost by now
   */
  requireHeld(): void
}

export interface LeaseOptions {
  /** After this much silence the server frees the lease. */
  silenceMs?: number
}

/**
 * Runs the work if no other process holds the lease. Returns false if one does. `lost` aborts when the lease is lost.
 * @throws what the work throws, or a failure of the database
 */
export async function withLease(
  url: string,
  name: string,
  work: (lost: AbortSignal, held: Held) => Promise<void>,
  options: LeaseOptions = {},
): Promise<boolean> {
  const { idleMs } = limitsOf('lease')
  const silenceMs = options.silenceMs ?? idleMs
  const lost = new AbortController()
  const lose = (why: unknown) => {
    const cause = meansUnreachable(why) ? new UnreachableError(why) : why
    lost.abort(new LeaseLostError(`the lease ${name} was lost`, { cause }))
  }
  let aliveAt = now()
  const client = await openSession(url, 'lease', { limits: { idleMs: silenceMs }, onError: lose })
  client.on('end', () => lose('its connection ended'))

  const requireHeld = () => {
    if (silentMs(aliveAt) >= silenceMs) lose(`its holder was silent for ${Math.round(silentMs(aliveAt))} ms`)
    lost.signal.throwIfAborted()
  }

  /** The lease is valid for `silenceMs` after the time at which an answered heartbeat was sent. */
  async function beat(pid: number): Promise<void> {
    const sentAt = now()
    if ((await backendPid(client)) !== pid) throw new Error('another backend answered')
    aliveAt = sentAt
  }

  let heart: NodeJS.Timeout | undefined
  try {
    // A standby has separate locks: a lease held there excludes no process on the primary.
    await refuseStandby(client)
    const sentAt = now()
    const { rows } = await client.query<{ held: boolean; pid: number }>(
      'select pg_try_advisory_lock($1, hashtext($2)) as held, pg_backend_pid() as pid',
      [CLASS, name],
    )
    const [row] = rows
    if (row?.held !== true) return false
    aliveAt = sentAt
    let beating = false
    heart = setInterval(() => {
      if (silentMs(aliveAt) >= silenceMs)
        lose(`its holder was silent for ${Math.round(silentMs(aliveAt))} ms`)
      if (beating || lost.signal.aborted) return
      beating = true
      beat(row.pid)
        .catch(lose)
        .finally(() => {
          beating = false
        })
    }, silenceMs / BEATS)
    await work(lost.signal, { requireHeld })
    return true
  } finally {
    clearInterval(heart)
    endSession(client)
  }
}

interface Instant {
  readonly monotonicMs: number
  readonly wallMs: number
}

function now(): Instant {
  return { monotonicMs: performance.now(), wallMs: Date.now() }
}

function silentMs(since: Instant): number {
  return Math.max(performance.now() - since.monotonicMs, Date.now() - since.wallMs)
}

async function backendPid(client: pg.Client): Promise<number | undefined> {
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
  return rows[0]?.pid
}
