// An end to waiting: kafkajs waits without one in places. What is given up may go on; nobody listens to it any more.

import { setTimeout as pause } from 'node:timers/promises'
import { BusError } from './bus.ts'

const CLOSE_DEADLINE_MS = 5_000

export function asBusError(thrown: unknown, what: string): BusError {
  if (thrown instanceof BusError) return thrown
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return new BusError(`${what} failed: ${message}`, { cause: thrown })
}

/** What is going away may fail to say goodbye, or never end. */
export async function quietly(closing: Promise<unknown>, ms: number = CLOSE_DEADLINE_MS): Promise<void> {
  await deadline(closing, ms, 'closing').catch(() => {})
}

/** @throws BusError when it takes longer; whatever the work throws before */
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
