// Asking a store again: bounded in tries and in time, with full jitter, so that a store that asks everybody to slow
// down is not hit by all at the same moment. What may be asked again is the adapter's table (`failureOf`), not decided
// here. Whatever finally fails is a StoreError with the operator's sentence.

import { pause } from '../../pause.ts'
import { StoreError } from '../blob-store.ts'
import type { Failure } from './object-service.ts'

export interface RetryLimits {
  readonly triesMax: number
  /** One try is given up after this. */
  readonly tryMs: number
  /** No further try begins after this. */
  readonly totalMs: number
  /** The first wait is up to this, each further one up to twice the one before. */
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
 * The work's result. The signal it gets aborts when its time is over or the caller's signal aborts.
 * @throws the caller's reason when its signal aborts; else StoreError
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

/** Not every SDK settles when its signal aborts: nobody waits longer than the signal. */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(signal.reason)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}
