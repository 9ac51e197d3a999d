// Waits for a condition, with a deadline. Use it instead of a fixed sleep.

import { setTimeout as pause } from 'node:timers/promises'

const POLL_MS = 10
/** Only a failing test waits this long. It allows for a busy machine. */
const DEADLINE_MS = 30_000

/** Resolves with the first value that is not undefined or false. @throws Error naming the condition on timeout */
export async function eventually<T>(
  what: string,
  condition: () => T | Promise<T>,
  deadlineMs = DEADLINE_MS,
): Promise<Exclude<T, undefined | false>> {
  const giveUpAtMs = performance.now() + deadlineMs
  for (;;) {
    const value = await condition()
    if (value !== undefined && value !== false) return value as Exclude<T, undefined | false>
    if (performance.now() > giveUpAtMs) throw new Error(`gave up waiting ${deadlineMs} ms for: ${what}`)
    await pause(POLL_MS)
  }
}
