// Retries requests to a store, bounded in attempts and in time. Full jitter prevents all clients from retrying at the
// same moment when a store asks them to slow down. The adapter's table (`failureOf`) decides what may be retried. The
// final failure is a StoreError with a sentence for the operator.

import { pause } from '../../pause.ts'
import { StoreError } from '../blob-store.ts'
import type { Failure } from './object-service.ts'

export interface RetryLimits {
  readonly triesMax: number
  /** Time limit of one attempt. */
  readonly tryMs: number
  /** No further attempt begins after this time. */
  readonly totalMs: number
  /** Upper bound of the first wait. Each further bound is twice the one before. */
  readonly waitMs: number
  readonly waitMsMax: number
}

export const RETRY_LIMITS: RetryLimits = Object.freeze({
  triesMax: 6,
  tryMs: 20_000,
  totalMs: 45_000,
  waitMs: 100,
  waitMsMax: 5_000,
})

/**
 * Returns the result of the work. The signal passed to it aborts when its time is over or the caller's signal aborts.
 * @throws the caller's reason if its signal aborts; otherwise StoreError
 */
export async function retrying<T>(
  work: (signal: AbortSignal) => Promise<T>,
  options: { failureOf(thrown: unknown): Failure; limits: RetryLimits; signal?: AbortSignal | undefined },
): Promise<T> {
  const { failureOf, limits, signal } = options
  const giveUpAtMs = performance.now() + limits.totalMs
  for (let tries = 1; ; tries++) {
    signal?.throwIfAborted()
    const timeout = AbortSignal.timeout(limits.tryMs)
    const either = signal === undefined ? timeout : AbortSignal.any([signal, timeout])
    let failure: Failure
    try {
      return await orAborted(work(either), either)
    } catch (thrown) {
      signal?.throwIfAborted()
      if (thrown instanceof StoreError) throw thrown
      failure = timeout.aborted
        ? { kind: 'unavailable', again: true, message: `the store did not answer within ${limits.tryMs} ms` }
        : failureOf(thrown)
      const waitMs = Math.random() * Math.min(limits.waitMsMax, limits.waitMs * 2 ** (tries - 1))
      const late = performance.now() + waitMs > giveUpAtMs
      if (!failure.again || tries >= limits.triesMax || late) {
        throw new StoreError(failure.kind, failure.message, { cause: thrown })
      }
      await pause(waitMs, { signal, ref: true })
    }
  }
}

/** Not every SDK settles when its signal aborts. With this, no caller waits longer than the signal. */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(signal.reason)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}
