// Stores the output of the embedded Postgres in a file that is replaced when it grows too large. Keeps the end of the
// output in memory, for the message that says why a start failed.
//
// The file is only a convenience. If it cannot be written (the disk is full, the directory is gone), lines are dropped
// and the file is reopened later. Nothing waits for it, and it never ends the process.

import { createWriteStream, renameSync, type WriteStream } from 'node:fs'
import type { Readable } from 'node:stream'

const FILE_BYTES_MAX = 16 * 1024 * 1024
const TAIL_CHARS_MAX = 2_000
/** Output in memory that a slow disk has not taken yet. Anything beyond it is dropped. */
const WAITING_BYTES_MAX = 1024 * 1024
/** After a write failure, the file is reopened after this time. */
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
      // The old file stays and is overwritten: a log that cannot be kept must not end the process.
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
