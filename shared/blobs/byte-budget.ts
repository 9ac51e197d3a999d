// A process-wide budget of read buffers. Streams to slow clients are what fills a registry's memory: each holds what
// it has read and could not send. So buffers come from here, pooled, large while few streams are open and small when
// many are, and whoever finds the budget spent waits in line. What a waiting stream costs is a queue entry.

import { createWaitingLine } from './waiting-line.ts'

/** Large enough that reading and sending overlap well. */
const LARGE_BYTES = 1024 * 1024
const MEDIUM_BYTES = 256 * 1024
const SMALL_BYTES = 64 * 1024
/**
 * Fractions of the budget in use at which streams get smaller buffers. Early ones, so that hundreds of clients that
 * stand still leave most of the budget to those that read.
 */
const LARGE_UNTIL = 1 / 8
const MEDIUM_UNTIL = 3 / 8

export interface ByteBudget {
  /**
   * A buffer of at most 1 MiB, smaller under pressure or when `wanted` is smaller. Waits while the budget is spent.
   * @throws the signal's reason when it aborts first
   */
  take(wanted: number, signal: AbortSignal): Promise<Buffer>
  give(buffer: Buffer): void
  /** Bytes handed out now. */
  inUse(): number
  /** Past the large buffers: a stream should hold one, not two. */
  isTight(): boolean
}

export function createByteBudget(options: { bytesMax: number }): ByteBudget {
  const { bytesMax } = options
  const pooled: Record<number, Buffer[]> = { [LARGE_BYTES]: [], [MEDIUM_BYTES]: [], [SMALL_BYTES]: [] }
  const line = createWaitingLine<number, Buffer>()
  let used = 0
  let pooledBytes = 0

  function sizeFor(wanted: number): number {
    const allowed =
      used < bytesMax * LARGE_UNTIL
        ? LARGE_BYTES
        : used < bytesMax * MEDIUM_UNTIL
          ? MEDIUM_BYTES
          : SMALL_BYTES
    if (wanted <= SMALL_BYTES) return SMALL_BYTES
    return wanted <= MEDIUM_BYTES ? Math.min(MEDIUM_BYTES, allowed) : allowed
  }

  function allocate(wanted: number): Buffer | undefined {
    const size = sizeFor(wanted)
    if (used + size > bytesMax && used > 0) return undefined
    used += size
    const buffer = pooled[size]?.pop()
    if (buffer === undefined) return Buffer.allocUnsafeSlow(size)
    pooledBytes -= size
    return buffer
  }

  return {
    inUse: () => used,
    isTight: () => used > bytesMax * LARGE_UNTIL,
    async take(wanted, signal) {
      signal.throwIfAborted()
      const buffer = line.length === 0 ? allocate(wanted) : undefined
      if (buffer !== undefined) return buffer
      return line.wait(wanted, signal)
    },
    give(buffer) {
      used -= buffer.length
      // What is kept for reuse counts too: the pool never holds more than the budget has to spare.
      if (used + pooledBytes + buffer.length <= bytesMax) {
        pooled[buffer.length]?.push(buffer)
        pooledBytes += buffer.length
      }
      line.serve(allocate)
    },
  }
}
