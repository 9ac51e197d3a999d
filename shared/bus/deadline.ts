// Deadlines for waits that have none, as some in kafkajs. Abandoned work may continue, but its result is ignored.

import { setTimeout as pause } from 'node:timers/promises'
import { BusError } from './bus.ts'

const CLOSE_DEADLINE_MS = 5_000

export function asBusError(thrown: unknown, what: string): BusError {
  if (thrown instanceof BusError) return thrown
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return new BusError(`${what} failed: ${message}`, { cause: thrown })
}

/** Waits for something to close. Ignores its errors, and stops waiting after `ms`. */
export async function quietly(closing: Promise<unknown>, ms: number = CLOSE_DEADLINE_MS): Promise<void> {
  await deadline(closing, ms, 'closing').catch(() => {})
}

/** @throws BusError if the work takes longer than `ms`; otherwise whatever the work throws */
export async function deadline<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
  const stop = new AbortController()
  try {
    return await Promise.race([
      work,
      pause(ms, undefined, { signal: stop.signal }).then(() => {
        throw new BusError(`${what} took more than ${ms} ms`)
      }),
    ])
  } finally {
    stop.abort()
  }
}
