// What the embedded Postgres says: kept in a file that is started anew when it grows, and its end in memory for the
// sentence that tells why a start failed.
//
// The file is a convenience: when it cannot be written (the disk is full, the directory is gone) its lines are dropped
// and it is opened again after a while. Nobody waits for it, and it never ends the process.

import { createWriteStream, renameSync, type WriteStream } from 'node:fs'
import type { Readable } from 'node:stream'

const FILE_BYTES_MAX = 16 * 1024 * 1024
const TAIL_CHARS_MAX = 2_000
/** Lines in memory that a slow disk has not taken yet; more are dropped. */
const WAITING_BYTES_MAX = 1024 * 1024
/** A file that could not be written is tried again after this. */
const REOPEN_MS = 5_000

export interface ServerLog {
  take(stream: Readable): void
  tail(): string
  close(): void
}

export function createServerLog(path: string): ServerLog {
  let file: WriteStream | undefined
  let written = 0
  let brokenAtMs = Number.NEGATIVE_INFINITY
  let tail = ''

  function open(flags: 'w' | 'a'): void {
    const opened = createWriteStream(path, { flags, mode: 0o600 })
    opened.on('error', () => {
      brokenAtMs = performance.now()
      opened.destroy()
      if (file === opened) file = undefined
    })
    file = opened
  }

  function startAnew(): void {
    file?.end()
    written = 0
    try {
      renameSync(path, `${path}.1`)
    } catch {
      // The old file stays and is written over: a log that cannot be kept must not end anything.
    }
    open('w')
  }

  open('w')
  return {
    take(stream) {
      stream.on('data', (chunk: Buffer) => {
        tail = (tail + chunk.toString()).slice(-TAIL_CHARS_MAX)
        if (file === undefined) {
          if (performance.now() - brokenAtMs < REOPEN_MS) return
          open('a')
        }
        if (written + chunk.length > FILE_BYTES_MAX) startAnew()
        if (file === undefined || file.writableLength > WAITING_BYTES_MAX) return
        written += chunk.length
        file.write(chunk)
      })
    },
    tail: () => tail.trim(),
    close: () => file?.end(),
  }
}
