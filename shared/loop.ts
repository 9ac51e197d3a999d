// A bounded periodic loop: what workers are made of. One run at a time, a jittered pause between runs, a longer one
// after failures, and an end that waits for the run under way. Events may wake it early; it never depends on them.

import { pause } from './pause.ts'

const BACKOFF_MAX = 8

export interface LoopOptions {
  /** Pause between two runs. */
  everyMs: number
  /** One run; must be idempotent, bounded, and stop soon when the signal aborts. */
  run(signal: AbortSignal): Promise<void>
  onError(error: unknown): void
  /** Test seam: 0 to 1. */
  random?: () => number
}

export interface Loop extends AsyncDisposable {
  /** Starts the next run now. */
  wake(): void
}

export function startLoop(options: LoopOptions): Loop {
  const { everyMs, run, onError } = options
  const random = options.random ?? Math.random
  const stopping = new AbortController()
  let sleeping = new AbortController()
  let failures = 0

  async function work(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        await run(stopping.signal)
        failures = 0
      } catch (thrown) {
        if (stopping.signal.aborted) return
        failures = Math.min(failures + 1, BACKOFF_MAX)
        onError(thrown)
      }
      sleeping = new AbortController()
      // Between half and one and a half: nodes that started together drift apart.
      const delayMs = everyMs * (0.5 + random()) * Math.max(1, failures)
      await pause(delayMs, { signal: AbortSignal.any([stopping.signal, sleeping.signal]) })
    }
  }

  const working = work()
  return {
    wake: () => sleeping.abort(),
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await working
    },
  }
}
