// Records pulls as events. Pulls are counted in memory, and written at intervals as one event per manifest and tag. A
// pull costs one map entry and waits for nothing. A busy image costs as much as a quiet one, and a process writes a
// bounded number of rows however many pulls there are. Counts that were not written are lost if the process dies. The
// counts are for usage statistics only, and nothing depends on them. Pulls reach the outbox only this way, never one by
// one.

import { writePullEvents } from '#shared/db/pull-events.ts'
import type { Queryable } from '#shared/db/statement.ts'
import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName, Tag } from '#shared/oci/reference.ts'

/** Maximum number of different images between two writes. Pulls of further images are counted, but not by image. */
const ENTRIES_MAX = 1_000

export interface PullCounter {
  count(pull: {
    repository: RepositoryName
    digest: Digest
    mediaType: string
    size: number
    tag: Tag | undefined
  }): void
  /** Writes what was counted since the last write and returns the number of events. On failure the counts are kept. */
  write(db: Queryable, instance: string): Promise<number>
  /** Pulls that did not fit, since the start of the process. */
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
        // Pulls that were counted meanwhile are added, as far as there is room.
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
