// The log: JSON lines on standard output, buffered, without secrets.
//
// A line per request costs more than the request if each is written by itself, so lines are collected and written
// together, at the latest after a second and at the end of the process. Nothing that came in an Authorization header,
// a cookie or a query string is ever in a line: request lines are built from parsed parts only (request-line.ts).
//
// Lines that standard output does not take (it is a file on a full disk) wait up to a bound and are then dropped. That
// never ends the process, and the log goes on when there is space again.

import { type DestinationStream, type Logger, pino, stdSerializers } from 'pino'
import { createLineWriter, type LineWriter } from './line-writer.ts'
import { createRequestLines, type RequestFacts } from './request-line.ts'

/** Pino, and beside it what writes the lines of requests to the same place (request-line.ts). */
export interface Log extends Logger {
  request(facts: RequestFacts): void
}

/** One write for a few hundred requests: each is a hop to the thread pool. */
const BUFFER_BYTES = 64 * 1024
const FLUSH_MS = 1_000
const WAITING_BYTES_MAX = 4 * 1024 * 1024
const STANDARD_OUTPUT = 1

export interface LogHandle extends Disposable {
  readonly log: Log
}

export function createLog(options: { level: string; to?: DestinationStream; name?: string }): LogHandle {
  const output = options.to === undefined ? standardOutput() : borrowed(options.to)
  const base = options.name === undefined ? null : { region: options.name }
  const logger = pino(
    {
      level: options.level,
      base,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: stdSerializers.errWithCause },
      redact: {
        paths: ['authorization', 'headers.authorization', 'headers.cookie', 'password', 'token'],
        censor: '***',
      },
    },
    output,
  )
  const requestLine = createRequestLines(base === null ? '' : `,"region":${JSON.stringify(base.region)}`)
  const log: Log = Object.assign(logger, {
    request: (facts: RequestFacts) => void output.write(requestLine(facts)),
  })
  return {
    log,
    [Symbol.dispose]() {
      output[Symbol.dispose]()
    },
  }
}

function standardOutput(): LineWriter {
  return createLineWriter({
    fd: STANDARD_OUTPUT,
    bufferBytes: BUFFER_BYTES,
    flushMs: FLUSH_MS,
    waitingBytesMax: WAITING_BYTES_MAX,
    droppedLine: (lines) =>
      `${JSON.stringify({ level: 'warn', time: new Date().toISOString(), lines, msg: 'log lines were dropped: standard output took none' })}\n`,
  })
}

function borrowed(to: DestinationStream): LineWriter {
  return { write: (line) => to.write(line), [Symbol.dispose]() {} }
}

/** The one line of a request. */
export function logRequest(log: Log, facts: RequestFacts): void {
  if (log.isLevelEnabled('info')) log.request(facts)
}
