// Lines to standard output, collected and written together, by a writer that nothing can stop or hang.
//
// Pino's own writer is not used: when a file descriptor refuses bytes (a file on a full disk) it ends the process, and
// with a listener for that its synchronous flush repeats for ever. Here lines wait in memory up to a bound, further ones
// are dropped and counted, writing is tried again every second, and the last flush is bounded. Lines stay whole.

import { writeSync, write as writeTo } from 'node:fs'

/** Enough for a pipe whose reader is slow; a reader that stands still must not hold a process that ends. */
const LAST_TRIES_MAX = 20
const LAST_WAIT_MS = 10
/** A pipe that is full empties soon, a disk does not. */
const AGAIN_MS = 20
const REFUSED_MS = 1_000

export interface LineWriter extends Disposable {
  /** The line with its line feed. Never throws. */
  write(line: string): void
}

export interface LineWriterOptions {
  fd: number
  /** So much is collected before it is written ... */
  bufferBytes: number
  /** ... or until so much time has passed. */
  flushMs: number
  /** Lines that the descriptor has not taken; more are dropped. */
  waitingBytesMax: number
  /** The line that tells how many were dropped, written when lines go out again. */
  droppedLine(count: number): string
}

export function createLineWriter(options: LineWriterOptions): LineWriter {
  const { fd, bufferBytes, flushMs, waitingBytesMax, droppedLine } = options
  let lines: string[] = []
  let bytes = 0
  /** What is being written: its rest is written before anything else. */
  let rest: Buffer = Buffer.alloc(0)
  let writing = false
  /** The system has the rest in its hands: nobody else may write it. */
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

  /** At the end of the process: what can be written at once is. */
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
    [Symbol.dispose]() {
      clearInterval(timer)
      process.off('exit', flushLast)
      flushLast()
    },
  }
}
