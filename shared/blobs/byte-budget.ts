// A process-wide budget of read buffers. Streams to slow clients use most of a registry's memory: each holds what it
// has read and could not send. So their buffers come from this pool. They are large while few streams are open and
// small when many are. If the budget is spent, a stream waits in line, and a waiting stream costs one queue entry.

import { createWaitingLine } from './waiting-line.ts'

/** Large enough for reading and sending to overlap well. */
const LARGE_BYTES = 1024 * 1024
const MEDIUM_BYTES = 256 * 1024
const SMALL_BYTES = 64 * 1024
/**
 * Fractions of the budget in use at which streams get smaller buffers. They are low, so that hundreds of stalled
 * clients leave most of the budget to those that read.
 */
const LARGE_UNTIL = 1 / 8
const MEDIUM_UNTIL = 3 / 8

export interface ByteBudget {
  /**
   * Returns a buffer of at most 1 MiB, smaller under pressure or if `wanted` is smaller. Waits while the budget is
   * spent.
   * @throws the reason of the signal if it aborts first
   */
  take(wanted: number, signal: AbortSignal): Promise<Buffer>
  give(buffer: Buffer): void
  /** Bytes currently handed out. */
  inUse(): number
  /** True once buffers are no longer large: a stream should then hold one buffer, not two. */
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
      // Buffers kept for reuse count too: the pool never holds more than the unused part of the budget.
      if (used + pooledBytes + buffer.length <= bytesMax) {
        pooled[buffer.length]?.push(buffer)
        pooledBytes += buffer.length
      }
      line.serve(allocate)
    },
  }
}
