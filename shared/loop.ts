// A bounded periodic loop, on which workers are built. Only one run is active at a time. The pause between runs has
// jitter and grows after failures. Disposing waits for the current run. Events may wake the loop early, but it never
// depends on them.

import { pause } from './pause.ts'

const BACKOFF_MAX = 8

export interface LoopOptions {
  /** Pause between two runs. */
  everyMs: number
  /** One run. It must be idempotent and bounded, and stop soon after the signal aborts. */
  run(signal: AbortSignal): Promise<void>
  onError(error: unknown): void
  /** Test seam: returns 0 to 1. */
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
      // Between half and one and a half times the interval, so that nodes that start together drift apart.
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
