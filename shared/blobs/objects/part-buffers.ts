// Buffers for uploads to an object store, from one process-wide budget. A service requires parts of 5 MiB, so each
// upload holds what its client has sent since the last part, and fifty paused clients would fill the memory of a
// process. An upload takes one buffer before it accepts bytes, and never waits for a second one while it holds a
// half-filled one. So a waiting upload waits only for uploads that a client or the store moves forward, or that the
// minimum rate ends.

import { createWaitingLine } from '../waiting-line.ts'

export interface PartBuffers {
  /**
   * Returns a buffer of exactly `bytes`; waits in line while the budget is spent.
   * @throws the reason of the signal if it aborts first
   */
  take(bytes: number, signal: AbortSignal): Promise<Buffer>
  give(buffer: Buffer): void
  /** Bytes currently handed out. */
  inUse(): number
}

/** Full-size buffers kept for the next upload, because allocating one touches five megabytes of new memory. */
const POOLED_MAX = 4

export function createPartBuffers(options: { bytesMax: number }): PartBuffers {
  const { bytesMax } = options
  const line = createWaitingLine<number, Buffer>()
  const pool: Buffer[] = []
  let used = 0

  function allocate(bytes: number): Buffer | undefined {
    if (used > 0 && used + bytes > bytesMax) return undefined
    used += bytes
    const index = pool.findIndex((buffer) => buffer.length === bytes)
    return index < 0 ? Buffer.allocUnsafeSlow(bytes) : pool.splice(index, 1)[0]
  }

  return {
    inUse: () => used,
    async take(bytes, signal) {
      signal.throwIfAborted()
      const buffer = line.length === 0 ? allocate(bytes) : undefined
      if (buffer !== undefined) return buffer
      return line.wait(bytes, signal)
    },
    give(buffer) {
      used -= buffer.length
      if (buffer.length > 1024 * 1024 && pool.length < POOLED_MAX) pool.push(buffer)
      line.serve(allocate)
    },
  }
}
