// The database: pools of connections, and the functions that run statements on them.
//
// Writes and reads have separate pools, so that writes that wait for a lock never take a connection from a read. Each
// repository's writes may use only a share of the pool (fair-share.ts). Pulls and lists of names do not use these
// pools: they use snapshot readers (snapshot-reader.ts). Versions are selected `::text`: a bigint beyond 2^53 throws
// instead of losing digits. Serialization failures and deadlocks are retried here, three times, because all our
// statements and transactions can be repeated. If a connection is lost while a statement runs, the statement is not
// retried, because it may have committed.

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
   * Runs the function in one transaction. Rolls back if it throws. Retries on deadlock, so the function must be
   * repeatable. `repository`: the repository whose share of the pool the transaction uses. A single statement takes it
   * from its parameter of that name.
   */
  transaction<T>(work: (db: Queryable) => Promise<T>, options?: { repository?: string }): Promise<T>
  /** Returns the numbers of connections of the pool, for metrics. */
  poolSize(): { total: number; idle: number; waiting: number }
  /** Returns how often work was retried, by cause, for metrics and for the tests of the lock order. */
  retries(): Readonly<Record<RetryCause, number>>
}

export interface ConnectOptions {
  url: string
  /** Connections of the pool. More connections than the server has cores mostly add waiting. */
  connections: number
  /** Selects the limits for running and waiting of statements. The default is writes. */
  work?: Work
  limits?: Partial<SessionLimits>
  /** Called with errors on idle connections. The pool replaces these connections by itself. */
  onIdleError(error: Error): void
  /**
   * Runs on each new connection before it is used. If it rejects, the connection is closed and the query fails with its
   * error.
   */
  onConnect?: (client: pg.ClientBase) => Promise<void>
  /** Called before the caller gets the error, if the database could not be reached or the connection was lost. */
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
    // The pool attaches the whole client to the error, which does not belong in a log.
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
  // The pool listens only to its idle connections. Without this, a connection lost between two statements would end the
  // process.
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
    // A connection that is lost or does not answer is closed. The server then rolls back by itself.
    if (meansUnreachable(thrown)) broken ??= thrown as Error
    else {
      await client.query('rollback').catch((error: Error) => {
        broken = error
      })
    }
    // The reason for which the connection was lost is more useful than the next statement's error.
    throw meansUnreachable(thrown) ? broken : thrown
  } finally {
    client.off('error', lost)
    client.release(broken)
  }
}
