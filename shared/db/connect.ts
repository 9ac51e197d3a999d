// The database: pools of connections, and what runs statements on them.
//
// Writes and reads have pools of their own, so that writes that wait for a lock never keep a read from a connection; and
// no repository's writes have more than a share of the pool (fair-share.ts). Pulls and lists of names do not come here:
// they go through snapshot readers (snapshot-reader.ts). Versions are selected `::text`: a bigint beyond 2^53 throws
// instead of losing digits. Serialization failures and deadlocks are retried here, three times, because every statement
// and transaction of ours may simply run again. A connection that is lost while a statement runs is not: nobody knows
// whether it committed.

import pg from 'pg'
import { meansUnreachable, type RetryCause, retryCause, UnreachableError } from './failures.ts'
import { createFairShare } from './fair-share.ts'
import {
  CONNECT_TIMEOUT_MS,
  limitedOptions,
  limitSession,
  limitsOf,
  type SessionLimits,
  type Work,
} from './session.ts'
import { bind, type Parameters, type Queryable, type Statement } from './statement.ts'

const RETRIES_MAX = 3

export interface Database extends Queryable, AsyncDisposable {
  /**
   * Runs the function in one transaction; rolls back when it throws. Retried on deadlock: it must be repeatable.
   * `repository`: whose share of the pool it takes; statements on their own have it as the parameter of that name.
   */
  transaction<T>(work: (db: Queryable) => Promise<T>, options?: { repository?: string }): Promise<T>
  /** Connections of the pool, for metrics. */
  poolSize(): { total: number; idle: number; waiting: number }
  /** How often work ran again, by what ended it: for metrics, and for the tests of the lock order. */
  retries(): Readonly<Record<RetryCause, number>>
}

export interface ConnectOptions {
  url: string
  /** Connections of the pool. More than the server has cores mostly adds waiting. */
  connections: number
  /** Decides how long statements may run and wait; writes by default. */
  work?: Work
  limits?: Partial<SessionLimits>
  /** Told of errors on idle connections: the pool replaces them by itself. */
  onIdleError(error: Error): void
  /** Runs on each new connection before it is used; rejecting, the connection is closed and its error is the query's. */
  onConnect?: (client: pg.ClientBase) => Promise<void>
  /** Told when the database could not be reached or went away, before the caller is. */
  onUnreachable?(error: UnreachableError): void
}

export function openDatabase(options: ConnectOptions): Database {
  const limits = limitsOf(options.work ?? 'write', options.limits)
  const pool = new pg.Pool({
    ...limitedOptions(options.url, limits),
    max: options.connections,
    async onConnect(client) {
      await limitSession(client, limits)
      await options.onConnect?.(client)
    },
  })
  pool.on('error', (error: Error & { client?: unknown }) => {
    // The pool hangs the whole client on it, which is nothing for a log.
    delete error.client
    options.onIdleError(error)
  })
  const share = createFairShare({ connections: options.connections, waitMs: CONNECT_TIMEOUT_MS })
  const retries = { serialization: 0, deadlock: 0 }
  let ended: Promise<void> | undefined

  async function sharing<T>(repository: unknown, attempt: () => Promise<T>): Promise<T> {
    try {
      return await share.run(repository, () => retrying(attempt))
    } catch (thrown) {
      if (!meansUnreachable(thrown)) throw thrown
      const away = new UnreachableError(thrown)
      options.onUnreachable?.(away)
      throw away
    }
  }

  async function retrying<T>(attempt: () => Promise<T>): Promise<T> {
    for (let retry = 0; ; retry++) {
      try {
        return await attempt()
      } catch (thrown) {
        const cause = retryCause(thrown)
        if (cause === undefined) throw thrown
        retries[cause]++
        if (retry >= RETRIES_MAX) throw thrown
      }
    }
  }

  return {
    rows: (statement, values) => sharing(values?.repository, () => run(pool, statement, values)),
    transaction: (work, of) => sharing(of?.repository, () => inTransaction(pool, work)),
    poolSize: () => ({ total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount }),
    retries: () => ({ ...retries }),
    async [Symbol.asyncDispose]() {
      ended ??= pool.end()
      await ended
    },
  }
}

async function run<Row>(
  client: pg.Pool | pg.PoolClient,
  statement: Statement<Row>,
  values: Parameters = {},
): Promise<Row[]> {
  const result = await client.query({
    name: statement.name,
    text: statement.text,
    values: bind(statement, values),
  })
  return result.rows as Row[]
}

async function inTransaction<T>(pool: pg.Pool, work: (db: Queryable) => Promise<T>): Promise<T> {
  const client = await pool.connect()
  let broken: Error | undefined
  // The pool listens to its idle connections only: one that is lost between two statements would end the process.
  const lost = (error: Error) => {
    broken = error
  }
  client.on('error', lost)
  try {
    await client.query('begin')
    const result = await work({ rows: (statement, values) => run(client, statement, values) })
    await client.query('commit')
    return result
  } catch (thrown) {
    // A connection that is lost or does not answer is closed: the server rolls back by itself.
    if (meansUnreachable(thrown)) broken ??= thrown as Error
    else {
      await client.query('rollback').catch((error: Error) => {
        broken = error
      })
    }
    // Why the connection was lost tells more than that the next statement found it so.
    throw meansUnreachable(thrown) ? broken : thrown
  } finally {
    client.off('error', lost)
    client.release(broken)
  }
}
