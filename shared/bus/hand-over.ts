// Hands one batch to a handler until it is taken: an error is told, waited out and tried again, never thrown on, because
// what stands behind a bus (kafkajs stops for ever at a TypeError and spins at other errors) is no place for it.

import { pause } from '../pause.ts'

const PAUSE_MS = 100
const PAUSE_MS_MAX = 2_000

export interface HandOverOptions {
  readonly signal: AbortSignal
  onProblem(error: unknown): void
  /** Asked before each repetition; may throw to give the batch back. */
  goOn?(): Promise<boolean>
}

/** True when the batch was taken; false when it was given up because nobody wants it any more. */
export async function handOver(work: () => Promise<void>, options: HandOverOptions): Promise<boolean> {
  const { signal, onProblem, goOn } = options
  for (let pauseMs = PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)) {
    if (signal.aborted) return false
    try {
      await work()
      return true
    } catch (thrown) {
      onProblem(thrown)
    }
    await pause(pauseMs, { signal })
    if (goOn !== undefined && !(await goOn())) return false
  }
}
