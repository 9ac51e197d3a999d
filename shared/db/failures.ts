// What a failure of the database means: retry at once, try later, or a bug. This one table decides by SQLSTATE and by
// socket error codes (https://www.postgresql.org/docs/current/errcodes-appendix.html).
//
// - Retryable: Postgres rolled the statement back because of concurrent statements. It had no effect and can run again.
// - Unreachable: the server or the connection to it is gone. The statement may have been committed, so it is not
//   retried here. The client is told to retry.
// - Passing: either of these, or the server could not do it now (full, out of memory, cancelled, a lock not had in
//   time, a standby). Clients get 503 with Retry-After.

import { PoolBusyError } from './fair-share.ts'

export type RetryCause = 'serialization' | 'deadlock'

const RETRYABLE: ReadonlyMap<string, RetryCause> = new Map([
  ['40001', 'serialization'],
  ['40P01', 'deadlock'],
])

/** Class 08 connection exceptions, shutdowns, sessions that the server ended, too many connections. */
const UNREACHABLE_SQLSTATE = /^(08...|57P0[1235]|25P0[34]|53300)$/

/**
 * Class 40 rollbacks, 53 resources, 57 operator interventions, lock_not_available, a read-only server, I/O errors of
 * its disk.
 */
const PASSING_SQLSTATE = /^(40...|53...|57...|55P03|25006|25P0[34]|58030)$/

/** Node's codes for a connection that cannot be made or was lost (https://nodejs.org/api/errors.html). */
const UNREACHABLE_SOCKET: ReadonlySet<string> = new Set([
  'EAI_AGAIN',
  'ECONNABORTED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'ENETDOWN',
  'ENETUNREACH',
  'ENOTFOUND',
  'EPIPE',
  'ETIMEDOUT',
])

/**
 * pg raises these errors without a code: a connection ended during use, could not be made in time, or does not answer.
 */
const UNREACHABLE_MESSAGE =
  /^(Connection terminated|timeout expired|Query read timeout|Client has encountered a connection error|Client was closed)/

/** The same for pg-pool: every connection is busy, or the process ends. */
const PASSING_MESSAGE = /^(timeout exceeded when trying to connect|Cannot use a pool after calling end)/

/** Returns the SQLSTATE or system code of a database error, else ''. */
export function sqlState(thrown: unknown): string {
  const code = (thrown as { code?: unknown } | null)?.code
  return typeof code === 'string' ? code : ''
}

/** Returns why the statement had no effect and can run again at once, or undefined if it must not. */
export function retryCause(thrown: unknown): RetryCause | undefined {
  return RETRYABLE.get(sqlState(thrown))
}

/**
 * The database could not be reached, went away or does not answer. Has the code of its cause, or '' if the cause has
 * none.
 */
export class UnreachableError extends Error {
  override readonly name = 'UnreachableError'
  readonly code: string

  constructor(cause: unknown) {
    super(`the database is out of reach: ${cause instanceof Error ? cause.message : 'unknown'}`, { cause })
    this.code = sqlState(cause) || (cause instanceof AggregateError ? sqlState(cause.errors[0]) : '')
  }
}

/**
 * True if the error, or its cause, is that the database could not be reached. Decided by type, because a socket's code
 * does not tell which socket it was.
 */
export function isUnreachable(thrown: unknown): boolean {
  if (thrown instanceof UnreachableError) return true
  return thrown instanceof Error && thrown.cause instanceof UnreachableError
}

/**
 * True if an error of the pg library means that the server or the connection to it is gone. For this folder, which
 * wraps that library.
 */
export function meansUnreachable(thrown: unknown): boolean {
  if (isUnreachable(thrown)) return true
  if (thrown instanceof AggregateError) return thrown.errors.some(meansUnreachable)
  const code = sqlState(thrown)
  if (UNREACHABLE_SQLSTATE.test(code) || UNREACHABLE_SOCKET.has(code)) return true
  // No socket file. Only for a connection: a missing file elsewhere is another problem.
  if (code === 'ENOENT') return (thrown as NodeJS.ErrnoException).syscall === 'connect'
  return code === '' && thrown instanceof Error && UNREACHABLE_MESSAGE.test(thrown.message)
}

/** Class 22 and 23: the data cannot be written, now or later. */
export function meansBadData(thrown: unknown): boolean {
  return /^2[23]...$/.test(sqlState(thrown))
}

/** True if the same request may succeed later without any change. */
export function isPassing(thrown: unknown): boolean {
  if (meansUnreachable(thrown) || thrown instanceof PoolBusyError) return true
  const code = sqlState(thrown)
  if (code !== '') return PASSING_SQLSTATE.test(code)
  return thrown instanceof Error && PASSING_MESSAGE.test(thrown.message)
}
