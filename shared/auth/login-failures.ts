// Failed logins, counted by account and network together, and the wait that they cost.
//
// Ten failures are free, each further one doubles the wait, up to half a minute; one failure is forgotten each minute.
// Counting by account alone would let anybody lock an account out, by address alone would let one program lock out
// everybody behind it. What is left: whoever shares a network with somebody who keeps failing on the same account
// waits with him, at most half a minute at a time. The counters are this process's own.

import { LRUCache } from 'lru-cache'

/** Failures that cost nothing: people mistype. */
const FREE = 10
const WAIT_FIRST_MS = 1_000
/** Guessing at this pace is hopeless, and a person still comes back. */
const WAIT_MS_MAX = 30_000
/** Beyond it a failure changes nothing, so that what was long ago does not keep counting. */
const COUNT_MAX = 16
const FORGET_ONE_MS = 60_000
/** Some 200 bytes each. */
const REMEMBERED_MAX = 50_000

export interface LoginFailures {
  /** Milliseconds until the next try is looked at; 0: now. */
  waitMs(who: string): number
  /** A try began: it counts as a failure until it is taken back, so that tries at once are no more than in a row. */
  charge(who: string): void
  /** The try was none of the client's fault, or the password was right. */
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
