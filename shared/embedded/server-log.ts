// What the embedded Postgres says: kept in a file that is started anew when it grows, and its end in memory for the
// sentence that tells why a start failed.

import { createWriteStream, renameSync, type WriteStream } from 'node:fs'
import type { Readable } from 'node:stream'

const FILE_BYTES_MAX = 16 * 1024 * 1024
const TAIL_CHARS_MAX = 2_000

export interface ServerLog {
  take(stream: Readable): void
  tail(): string
  close(): void
}

export function createServerLog(path: string): ServerLog {
  let file: WriteStream = createWriteStream(path, { flags: 'w', mode: 0o600 })
  let written = 0
  let tail = ''
  return {
    take(stream) {
      stream.on('data', (chunk: Buffer) => {
        tail = (tail + chunk.toString()).slice(-TAIL_CHARS_MAX)
        if (written + chunk.length > FILE_BYTES_MAX) {
          file.end()
          renameSync(path, `${path}.1`)
          file = createWriteStream(path, { flags: 'w', mode: 0o600 })
          written = 0
        }
        written += chunk.length
        file.write(chunk)
      })
    },
    tail: () => tail.trim(),
    close: () => file.end(),
  }
}
