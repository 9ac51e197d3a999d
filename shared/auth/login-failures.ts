// Counts failed logins per account and network, and derives the wait before the next attempt.
//
// Ten failures are free. Each further failure doubles the wait, up to 30 seconds. One failure is forgotten per minute.
// Counting by account alone would let anybody lock an account out. Counting by address alone would let one program lock
// out everybody behind that address. One effect remains: a user who shares a network with somebody who keeps failing on
// the same account also waits, at most 30 seconds at a time. Each process keeps its own counters.

import { LRUCache } from 'lru-cache'

/** Failures that cause no wait: people mistype. */
const FREE = 10
const WAIT_FIRST_MS = 1_000
/** At this rate guessing is hopeless, and a person can still retry. */
const WAIT_MS_MAX = 30_000
/** The counter stops here, so that old failures do not count for long. */
const COUNT_MAX = 16
const FORGET_ONE_MS = 60_000
/** About 200 bytes each. */
const REMEMBERED_MAX = 50_000

export interface LoginFailures {
  /** Returns the milliseconds until the next attempt is checked; 0 means now. */
  waitMs(who: string): number
  /** Counts an attempt as a failure when it starts, so that parallel attempts gain nothing over sequential ones. */
  charge(who: string): void
  /** Removes the charge: the password was right, or the attempt failed through no fault of the client. */
  takeBack(who: string): void
}

interface Count {
  readonly count: number
  readonly atMs: number
}

/** @param nowMs a monotonic clock */
export function createLoginFailures(nowMs: () => number): LoginFailures {
  const counts = new LRUCache<string, Count>({ max: REMEMBERED_MAX })

  function countOf(who: string): number {
    const known = counts.get(who)
    if (known === undefined) return 0
    return Math.max(0, known.count - (nowMs() - known.atMs) / FORGET_ONE_MS)
  }

  return {
    waitMs(who) {
      const known = counts.get(who)
      if (known === undefined || known.count <= FREE) return 0
      const waitMs = Math.min(WAIT_MS_MAX, WAIT_FIRST_MS * 2 ** (Math.ceil(known.count) - FREE - 1))
      return Math.max(0, known.atMs + waitMs - nowMs())
    },
    charge(who) {
      counts.set(who, { count: Math.min(COUNT_MAX, countOf(who) + 1), atMs: nowMs() })
    },
    takeBack(who) {
      const known = counts.get(who)
      if (known === undefined) return
      if (known.count <= 1) counts.delete(who)
      else counts.set(who, { ...known, count: known.count - 1 })
    },
  }
}
