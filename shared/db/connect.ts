// The database: a small pool for writes and rare reads, and what connections to it are like.
//
// Pulls do not come here: they go through the snapshot reader (snapshot-reader.ts), which opens its own connection
// with `connectionOptions`. bigint columns arrive as numbers; one beyond 2^53 throws instead of losing digits, so
// versions are selected `::text`. Serialization failures and deadlocks are retried here, three times, because every
// statement and transaction of ours may simply run again. A connection that is lost while a statement runs is not:
// nobody knows whether it committed.

import pg from 'pg'
import { bind, type Parameters, type Queryable, type Statement } from './statement.ts'

const CONNECT_TIMEOUT_MS = 5_000
/** No statement of the API comes near this; it ends those that wait for a lock nobody releases. */
const STATEMENT_TIMEOUT_MS = 30_000
const RETRIES_MAX = 3
/** serialization_failure, deadlock_detected: the statement did nothing and may run again. */
const RETRYABLE_SQLSTATES: ReadonlyMap<string, RetryCause> = new Map([
  ['40001', 'serialization'],
  ['40P01', 'deadlock'],
])
/** Class 08 connection exceptions, 57P0x shutdowns, 53300 too many connections, and the socket's own codes. */
const UNREACHABLE = /^(08...|57P0[123]|53300|ECONNREFUSED|ECONNRESET|EPIPE|ENOENT|ETIMEDOUT)$/

export type RetryCause = 'serialization' | 'deadlock'

export interface Database extends Queryable, AsyncDisposable {
  /** Runs the function in one transaction; rolls back when it throws. Retried on deadlock: it must be repeatable. */
  transaction<T>(work: (db: Queryable) => Promise<T>): Promise<T>
  /** Connections of the pool, for metrics. */
  poolSize(): { total: number; idle: number; waiting: number }
  /** How often work ran again, by what ended it: for metrics, and for the tests of the lock order. */
  retries(): Readonly<Record<RetryCause, number>>
}

export interface ConnectOptions {
  url: string
  /** Connections of the pool. More than the server has cores mostly adds waiting. */
  connections: number
  /** Told of errors on idle connections: the pool replaces them by itself. */
  onIdleError(error: Error): void
  /** Runs on each new connection before it is used; rejecting, the connection is closed and its error is the query's. */
  onConnect?: (client: pg.ClientBase) => Promise<void>
}

export function connectionOptions(url: string): pg.ClientConfig {
  return {
    connectionString: url,
    application_name: 'portolan',
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    keepAlive: true,
    types: { getTypeParser },
  }
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

export function openDatabase(options: ConnectOptions): Database {
  const { onConnect } = options
  const pool = new pg.Pool({
    ...connectionOptions(options.url),
    max: options.connections,
    ...(onConnect && { onConnect }),
  })
  pool.on('error', (error: Error & { client?: unknown }) => {
    // The pool hangs the whole client on it, which is nothing for a log.
    delete error.client
    options.onIdleError(error)
  })
  const retries = { serialization: 0, deadlock: 0 }
  let ended: Promise<void> | undefined

  async function retrying<T>(attempt: () => Promise<T>): Promise<T> {
    for (let retry = 0; ; retry++) {
      try {
        return await attempt()
      } catch (thrown) {
        const cause = RETRYABLE_SQLSTATES.get(sqlState(thrown))
        if (cause === undefined) throw thrown
        retries[cause]++
        if (retry >= RETRIES_MAX) throw thrown
      }
    }
  }

  return {
    rows: (statement, values) => retrying(() => run(pool, statement, values)),
    transaction: (work) => retrying(() => inTransaction(pool, work)),
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
    await client.query('rollback').catch((error: Error) => {
      broken = error
    })
    throw thrown
  } finally {
    client.off('error', lost)
    client.release(broken)
  }
}

/** The SQLSTATE or system code of a database error, else ''. */
export function sqlState(thrown: unknown): string {
  const code = (thrown as { code?: unknown } | null)?.code
  return typeof code === 'string' ? code : ''
}

/** True when the database could not be reached or went away: the request may be tried again later. */
export function isUnreachable(thrown: unknown): boolean {
  if (UNREACHABLE.test(sqlState(thrown))) return true
  if (thrown instanceof AggregateError) return thrown.errors.some(isUnreachable)
  return thrown instanceof Error && UNREACHABLE_MESSAGES.test(thrown.message)
}

/** pg raises these without a code when a connection ends under it or none can be had in time. */
const UNREACHABLE_MESSAGES =
  /^(Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error)/
