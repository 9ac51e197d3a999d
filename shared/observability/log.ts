// The log: JSON lines on standard output, buffered, without secrets.
//
// A line per request costs more than the request if each is written by itself, so lines are collected and written
// together, at the latest after a second and at the end of the process. Nothing that came in an Authorization header,
// a cookie or a query string is ever in a line: request lines are built from parsed parts only.
//
// Lines that standard output does not take (it is a file on a full disk) wait up to a bound and are then dropped. That
// never ends the process, and the log goes on when there is space again.

import { type DestinationStream, type Logger, pino, stdSerializers } from 'pino'
import { createLineWriter } from './line-writer.ts'

export type Log = Logger

const BUFFER_BYTES = 8 * 1024
const FLUSH_MS = 1_000
const WAITING_BYTES_MAX = 4 * 1024 * 1024
const STANDARD_OUTPUT = 1
const USER_AGENT_LENGTH_MAX = 256

export interface LogHandle extends Disposable {
  readonly log: Log
}

export function createLog(options: { level: string; to?: DestinationStream; name?: string }): LogHandle {
  const output =
    options.to === undefined
      ? createLineWriter({
          fd: STANDARD_OUTPUT,
          bufferBytes: BUFFER_BYTES,
          flushMs: FLUSH_MS,
          waitingBytesMax: WAITING_BYTES_MAX,
          droppedLine: (lines) =>
            `${JSON.stringify({ level: 'warn', time: new Date().toISOString(), lines, msg: 'log lines were dropped: standard output took none' })}\n`,
        })
      : undefined
  const log = pino(
    {
      level: options.level,
      base: options.name === undefined ? null : { region: options.name },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: stdSerializers.errWithCause },
      redact: {
        paths: ['authorization', 'headers.authorization', 'headers.cookie', 'password', 'token'],
        censor: '***',
      },
    },
    options.to ?? output,
  )
  return {
    log,
    [Symbol.dispose]() {
      output?.[Symbol.dispose]()
    },
  }
}

export interface RequestFacts {
  readonly id: string
  readonly method: string
  readonly route: string
  readonly repository: string | undefined
  /** Tag or digest as parsed; undefined when the path had none. */
  readonly reference: string | undefined
  readonly status: number
  readonly bytes: number
  readonly durationMs: number
  readonly actor: string
  readonly address: string
  readonly userAgent: string | undefined
  readonly code: string | undefined
}

/** The one line of a request. */
export function logRequest(log: Log, facts: RequestFacts): void {
  if (!log.isLevelEnabled('info')) return
  log.info({
    id: facts.id,
    method: facts.method,
    route: facts.route,
    repository: facts.repository,
    reference: facts.reference,
    status: facts.status,
    bytes: facts.bytes,
    ms: Math.round(facts.durationMs * 1000) / 1000,
    actor: facts.actor,
    address: facts.address,
    userAgent: facts.userAgent?.slice(0, USER_AGENT_LENGTH_MAX),
    code: facts.code,
  })
}
