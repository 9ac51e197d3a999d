// The log: JSON lines on standard output, buffered, without secrets.
//
// Writing each request's line separately costs more than the request. So lines are buffered and written together, after
// at most a second and at process exit. Nothing from an Authorization header, a cookie or a query string is ever logged:
// request lines are built only from parsed parts (request-line.ts).
//
// If standard output does not take lines (a file on a full disk), they wait up to a bound and are then dropped. This
// never ends the process, and logging resumes when there is space again.

import { type DestinationStream, type Logger, pino, stdSerializers } from 'pino'
import { createLineWriter, type LineWriter } from './line-writer.ts'
import { createRequestLines, type RequestFacts } from './request-line.ts'

/** Pino, plus a method that writes request lines to the same destination (request-line.ts). */
export interface Log extends Logger {
  request(facts: RequestFacts): void
}

/** One write for a few hundred requests, because each write is a hop to the thread pool. */
const BUFFER_BYTES = 64 * 1024
const FLUSH_MS = 1_000
const WAITING_BYTES_MAX = 4 * 1024 * 1024
const STANDARD_OUTPUT = 1

export interface LogHandle extends AsyncDisposable {
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
    [Symbol.asyncDispose]: () => output[Symbol.asyncDispose](),
  }
}

function standardOutput(): LineWriter {
  return createLineWriter({
    fd: STANDARD_OUTPUT,
    bufferBytes: BUFFER_BYTES,
    flushMs: FLUSH_MS,
    waitingBytesMax: WAITING_BYTES_MAX,
    droppedLine(lines) {
      const msg = 'standard output was blocked; log lines were dropped'
      return `${JSON.stringify({ level: 'warn', time: new Date().toISOString(), lines, msg })}\n`
    },
  })
}

function borrowed(to: DestinationStream): LineWriter {
  return { write: (line) => to.write(line), async [Symbol.asyncDispose]() {} }
}

/** Writes the single log line of a request. */
export function logRequest(log: Log, facts: RequestFacts): void {
  if (log.isLevelEnabled('info')) log.request(facts)
}
