// Pulls as events: counted in memory, and written every so often as one event per manifest and tag. So a pull costs a map
// entry and waits for nothing, a busy image costs what a quiet one does, and however many pulls there are, a process
// writes a bounded number of rows. What a process that dies had not written is not counted: these are for people who
// look at use, nothing depends on them. This is the one way in which pulls reach the outbox: never one by one.

import { writePullEvents } from '#shared/db/pull-events.ts'
import type { Queryable } from '#shared/db/statement.ts'
import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName, Tag } from '#shared/oci/reference.ts'

/** Different images between two writes; pulls of others are counted, but not told apart. */
const ENTRIES_MAX = 1_000

export interface PullCounter {
  count(pull: {
    repository: RepositoryName
    digest: Digest
    mediaType: string
    size: number
    tag: Tag | undefined
  }): void
  /** Writes what was counted since the last time; how many events. On failure it is counted on. */
  write(db: Queryable, instance: string): Promise<number>
  /** Pulls that found no room, since the start. */
  readonly dropped: number
}

export interface CountedPull {
  readonly repository: RepositoryName
  readonly digest: Digest
  readonly mediaType: string
  readonly size: number
  readonly tag: Tag | undefined
  count: number
}

export function createPullCounter(now: () => Date = () => new Date()): PullCounter {
  let since = now()
  let counted = new Map<string, CountedPull>()
  let dropped = 0
  let writing = false

  return {
    get dropped() {
      return dropped
    },
    count(pull) {
      const key = `${pull.repository} ${pull.digest} ${pull.tag ?? ''}`
      const known = counted.get(key)
      if (known !== undefined) known.count++
      else if (counted.size < ENTRIES_MAX) counted.set(key, { ...pull, count: 1 })
      else dropped++
    },
    async write(db, instance) {
      if (counted.size === 0 || writing) return 0
      writing = true
      const taken = counted
      const from = since
      const until = now()
      counted = new Map()
      since = until
      try {
        await writePullEvents(db, { pulls: [...taken.values()], from, until, instance })
        return taken.size
      } catch (thrown) {
        // What came meanwhile is added to it, as far as there is room.
        for (const [key, pull] of counted) {
          const known = taken.get(key)
          if (known !== undefined) known.count += pull.count
          else if (taken.size < ENTRIES_MAX) taken.set(key, pull)
          else dropped += pull.count
        }
        counted = taken
        since = from
        throw thrown
      } finally {
        writing = false
      }
    },
  }
}
