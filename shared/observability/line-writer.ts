// Writes lines to standard output in batches. Nothing can stop or hang this writer.
//
// Pino's own writer is not used. If a file descriptor refuses bytes (a file on a full disk), it ends the process; with
// a listener for that error, its synchronous flush loops forever. This writer keeps lines in memory up to a bound,
// drops and counts the rest, retries every second, and bounds the last flush. Lines are never split.

import { writeSync, write as writeTo } from 'node:fs'
import { pause } from '../pause.ts'

/** Enough for a slow reader of a pipe. A reader that has stopped must not keep the process from ending. */
const LAST_TRIES_MAX = 20
const LAST_WAIT_MS = 10
/** A full pipe drains soon; a full disk does not. */
const AGAIN_MS = 20
const REFUSED_MS = 1_000
/** How long the end waits for a write in flight. A disk that hangs must not keep the process from ending. */
const IN_FLIGHT_MS_MAX = 1_000
const IN_FLIGHT_LOOK_MS = 2

export interface LineWriter extends AsyncDisposable {
  /** Writes a line, which includes its line feed. Never throws. */
  write(line: string): void
}

export interface LineWriterOptions {
  fd: number
  /** Lines are written once this many bytes are buffered ... */
  bufferBytes: number
  /** ... or once this much time has passed. */
  flushMs: number
  /** Bytes of lines that the descriptor has not taken. Lines beyond it are dropped. */
  waitingBytesMax: number
  /** Returns the line that reports how many lines were dropped. It is written when writing works again. */
  droppedLine(count: number): string
}

export function createLineWriter(options: LineWriterOptions): LineWriter {
  const { fd, bufferBytes, flushMs, waitingBytesMax, droppedLine } = options
  let lines: string[] = []
  let bytes = 0
  /** The rest of a partial write. It is written before anything else. */
  let rest: Buffer = Buffer.alloc(0)
  let writing = false
  /** True while the system writes the rest. Nothing else may write it then. */
  let inFlight = false
  let dropped = 0

  function flush(): void {
    if (writing || bytes === 0) return
    rest = takeLines()
    send()
  }

  function takeLines(): Buffer {
    if (dropped > 0) lines.push(droppedLine(dropped))
    dropped = 0
    const taken = Buffer.from(lines.join(''))
    lines = []
    bytes = 0
    return taken
  }

  function send(): void {
    writing = true
    inFlight = true
    writeTo(fd, rest, (error, written) => {
      inFlight = false
      if (error !== null) {
        setTimeout(send, error.code === 'EAGAIN' ? AGAIN_MS : REFUSED_MS).unref()
        return
      }
      rest = rest.subarray(written)
      if (rest.length > 0) return send()
      writing = false
      if (bytes >= bufferBytes) flush()
    })
  }

  /** At process exit: writes what can be written at once. */
  function flushLast(): void {
    let last = takeLines()
    if (!inFlight) {
      last = Buffer.concat([rest, last])
      rest = Buffer.alloc(0)
    }
    for (let tries = 0; tries < LAST_TRIES_MAX && last.length > 0; ) {
      try {
        last = last.subarray(writeSync(fd, last))
      } catch (thrown) {
        if ((thrown as NodeJS.ErrnoException).code !== 'EAGAIN') return
        tries++
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LAST_WAIT_MS)
      }
    }
  }

  /** Resolves when no write is in flight: what is written at once afterwards comes behind it. */
  async function landed(): Promise<void> {
    const untilMs = performance.now() + IN_FLIGHT_MS_MAX
    while (inFlight && performance.now() < untilMs) await pause(IN_FLIGHT_LOOK_MS)
  }

  const timer = setInterval(flush, flushMs)
  timer.unref()
  process.once('exit', flushLast)
  return {
    write(line) {
      const length = Buffer.byteLength(line)
      if (bytes + rest.length + length > waitingBytesMax) {
        dropped++
        return
      }
      lines.push(line)
      bytes += length
      if (bytes >= bufferBytes) flush()
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await landed()
      process.off('exit', flushLast)
      flushLast()
    },
  }
}
