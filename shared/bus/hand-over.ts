// Passes one batch to a handler until the handler accepts it. An error is reported and retried after a pause, but never
// rethrown, because kafkajs cannot handle it: it stops for good on a TypeError and spins on other errors.

import { pause } from '../pause.ts'

const PAUSE_MS = 100
const PAUSE_MS_MAX = 2_000

export interface HandOverOptions {
  readonly signal: AbortSignal
  onProblem(error: unknown): void
  /** Called before each retry; false gives the batch up. May throw to give the batch back. */
  goOn?(): Promise<boolean>
}

/** Returns true if the batch was accepted, false if it was given up because it is no longer wanted. */
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
