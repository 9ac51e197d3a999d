// Settings of sessions with Postgres: how long each kind of work may run, wait and pause before the server ends it.
//
// A process that is frozen, cut off or lost must not hold a lock that others need. Its own timers stop with it, so the
// server enforces the limits. It ends a statement that waits for a lock (`lock_timeout`) or runs too long
// (`statement_timeout`), a transaction whose client pauses (`idle_in_transaction_session_timeout`), a lease whose
// holder is silent (`idle_session_timeout`), and a connection whose peer acknowledges nothing (`tcp_user_timeout`). If
// the server does not answer, a limit on this side applies too: `query_timeout`, a little longer than the server's.
//
// The limits are set by a statement after the connection is made, not as startup parameters, because session poolers
// refuse startup parameters that they do not know.

import pg from 'pg'
import { meansUnreachable, UnreachableError } from './failures.ts'

export interface SessionLimits {
  /** A statement that runs longer is cancelled (57014). */
  readonly statementMs: number
  /** A statement that waits longer for one lock is cancelled (55P03). */
  readonly lockMs: number
  /**
   * If the client of a transaction sends nothing for longer, the transaction is rolled back and its session ended
   * (25P03).
   */
  readonly transactionIdleMs: number
  /** A session that is idle for longer is ended (57P05). 0 means never. */
  readonly idleMs: number
}

/** The kinds of work that sessions do. */
export type Work = 'write' | 'read' | 'lease' | 'migration'

const SECOND_MS = 1_000
const MINUTE_MS = 60 * SECOND_MS

/**
 * - write: no write waits for a lock longer than a client waits for an answer, and a frozen writer's locks are free
 *   within seconds, so that the others continue within 10 s.
 * - read: reads wait for no row. Only a change of a table's schema can delay them.
 * - lease: the holder sends heartbeats three times in this time (lease.ts).
 * - migration: building an index on a large table takes long. Waiting for the table's lock must not, because the
 *   statements of all others wait behind it.
 */
const LIMITS: Readonly<Record<Work, SessionLimits>> = Object.freeze({
  write: { statementMs: 30 * SECOND_MS, lockMs: 3 * SECOND_MS, transactionIdleMs: 5 * SECOND_MS, idleMs: 0 },
  read: { statementMs: 8 * SECOND_MS, lockMs: 8 * SECOND_MS, transactionIdleMs: 5 * SECOND_MS, idleMs: 0 },
  lease: {
    statementMs: 3 * SECOND_MS,
    lockMs: 3 * SECOND_MS,
    transactionIdleMs: 5 * SECOND_MS,
    idleMs: 5 * SECOND_MS,
  },
  migration: {
    statementMs: 60 * MINUTE_MS,
    lockMs: 10 * SECOND_MS,
    transactionIdleMs: MINUTE_MS,
    idleMs: 0,
  },
})

/** A start that meets a silent server reports it within 5 s. */
export const CONNECT_TIMEOUT_MS = 4 * SECOND_MS
/** How much longer than the server's limit this side waits for an answer. */
const ANSWER_GRACE_MS = 2 * SECOND_MS
/**
 * If the peer's host does not acknowledge bytes for this long, the connection ends. Also the interval of the keepalive.
 */
const TCP_TIMEOUT_MS = 10 * SECOND_MS
const TCP_KEEPALIVES = 3

export function limitsOf(work: Work, changed: Partial<SessionLimits> = {}): SessionLimits {
  return { ...LIMITS[work], ...changed }
}

/** Connection options for the pg library. bigint columns arrive as numbers. */
export function connectionOptions(url: string): pg.ClientConfig {
  return {
    connectionString: url,
    application_name: 'portolan',
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: TCP_TIMEOUT_MS,
    types: { getTypeParser },
  }
}

/** The same, with the limit that this side enforces. */
export function limitedOptions(url: string, limits: SessionLimits): pg.ClientConfig {
  return { ...connectionOptions(url), query_timeout: limits.statementMs + ANSWER_GRACE_MS }
}

/** Sets the limits that the server enforces, in one round trip. Call it first on every new connection. */
export async function limitSession(client: pg.ClientBase, limits: SessionLimits): Promise<void> {
  const settings = {
    statement_timeout: limits.statementMs,
    lock_timeout: limits.lockMs,
    idle_in_transaction_session_timeout: limits.transactionIdleMs,
    idle_session_timeout: limits.idleMs,
    tcp_user_timeout: TCP_TIMEOUT_MS,
    tcp_keepalives_idle: TCP_TIMEOUT_MS / SECOND_MS,
    tcp_keepalives_interval: Math.ceil(TCP_TIMEOUT_MS / SECOND_MS / TCP_KEEPALIVES),
    tcp_keepalives_count: TCP_KEEPALIVES,
  }
  await client.query(
    Object.entries(settings)
      .map(([name, value]) => `set ${name} = ${value}`)
      .join(';'),
  )
}

/**
 * Opens a connection for one piece of work. End it with `endSession`.
 * @throws UnreachableError, or the server's error
 */
export async function openSession(
  url: string,
  work: Work,
  options: { limits?: Partial<SessionLimits>; onError(error: Error): void },
): Promise<pg.Client> {
  const limits = limitsOf(work, options.limits)
  const client = new pg.Client(limitedOptions(url, limits))
  client.on('error', options.onError)
  try {
    await client.connect()
    await limitSession(client, limits)
  } catch (thrown) {
    endSession(client)
    throw meansUnreachable(thrown) ? new UnreachableError(thrown) : thrown
  }
  return client
}

/**
 * Ends a session without waiting for a server that may never answer. Sends the termination message. If the connection
 * is still open after a moment, destroys it.
 */
export function endSession(client: pg.Client): void {
  const { stream } = (client as unknown as { connection: { stream: { destroy(): void } } }).connection
  const cut = setTimeout(() => stream.destroy(), ANSWER_GRACE_MS)
  cut.unref()
  void client.end().finally(() => clearTimeout(cut))
}

const int8Oid = 20

function getTypeParser(oid: number, format?: 'text' | 'binary') {
  if (oid === int8Oid && format !== 'binary') return parseInt8
  return pg.types.getTypeParser(oid, format)
}

function parseInt8(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new RangeError('a bigint beyond 2^53: select it ::text')
  return value
}
