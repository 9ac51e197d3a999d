// The read pump copies a file to a sink and reads the next block while the sink takes the last one. Buffers come from
// the process-wide budget; when it is tight, a stream holds one block, not two. The pump sends all bytes of the range
// or fails. A file that is shorter than expected is 'corrupt'.

import type { FileHandle } from 'node:fs/promises'
import { type ByteSink, StoreError } from '../blob-store.ts'
import type { ByteBudget } from '../byte-budget.ts'

export interface Pump {
  handle: FileHandle
  range: { start: number; end: number }
  sink: ByteSink
  signal: AbortSignal
  budget: ByteBudget
}

/** Reads the next block while the sink takes the last one; if the budget is tight, one block at a time. */
export async function pumpFile({ handle, range, sink, signal, budget }: Pump): Promise<void> {
  let position = range.start
  let sending: Promise<void> | undefined
  let failure: { thrown: unknown } | undefined
  const left = () => range.end + 1 - position
  try {
    while (left() > 0) {
      if (sending !== undefined && budget.isTight()) {
        await sending
        sending = undefined
      }
      throwIfFailed(failure)
      const buffer = await budget.take(left(), signal)
      let filled = 0
      try {
        const wanted = Math.min(buffer.length, left())
        while (filled < wanted) {
          const { bytesRead } = await handle.read(buffer, filled, wanted - filled, position + filled)
          if (bytesRead === 0) throw shortFile()
          filled += bytesRead
        }
        await sending
        throwIfFailed(failure)
        signal.throwIfAborted()
      } catch (thrown) {
        budget.give(buffer)
        throw thrown
      }
      position += filled
      sending = sink
        .write(buffer.subarray(0, filled))
        .catch((thrown: unknown) => {
          failure = { thrown }
        })
        .finally(() => budget.give(buffer))
    }
  } finally {
    await sending
  }
  throwIfFailed(failure)
}

function throwIfFailed(failure: { thrown: unknown } | undefined): void {
  if (failure !== undefined) throw failure.thrown
}

export function shortFile(): StoreError {
  return new StoreError('corrupt', 'a blob file does not hold the bytes its row promises')
}
