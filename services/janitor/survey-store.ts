// Counts before anything is removed: a pass over all objects of the store, in pages, that finds the orphans.
//
// An object is an orphan if it is older than the grace time by the store's clock and nothing in the database needs it.
// A pass over a large store takes several runs, and `step` continues where the last run stopped. A restarted process
// begins a new pass, which is safe because nothing was removed yet. Orphan keys are kept in memory up to a bound and
// only counted beyond it. The next pass finds the rest.

import { blobKeysInUse } from '#shared/db/blob-keys.ts'
import type { RegionWithStores } from '#shared/region.ts'
import type { Survey } from './sweep-limits.ts'

const PAGE = 500
/** The most objects examined in one run. */
const RUN_MAX = 100_000
/** About 10 MB of keys. */
const CANDIDATES_MAX = 100_000

export interface FinishedSurvey extends Survey {
  /** Keys of orphans, at most 100,000. Check each one again before removing it. */
  readonly candidates: readonly string[]
}

export interface StoreSurvey {
  /**
   * Continues the pass for about 100,000 objects. Returns the survey when the pass is complete; the next call begins
   * a new pass.
   * @param olderThanMs objects written before this time, by the store's clock, are old
   */
  step(olderThanMs: number, signal: AbortSignal): Promise<FinishedSurvey | undefined>
}

export function createStoreSurvey(region: RegionWithStores): StoreSurvey {
  const { blobs, db } = region
  const nothing = () => ({ after: '', objects: 0, named: 0, orphans: 0, orphanBytes: 0, candidates: [] })
  let pass: { after: string; candidates: string[] } & { -readonly [Name in keyof Survey]: number } = nothing()

  return {
    async step(olderThanMs, signal) {
      for (let looked = 0; looked < RUN_MAX && !signal.aborted; ) {
        const page = await blobs.list(pass.after, PAGE)
        const last = page.at(-1)
        if (last === undefined) {
          const { after: _, ...finished } = pass
          pass = nothing()
          return finished
        }
        const used = await blobKeysInUse(db, { store: blobs, keys: page.map(({ key }) => key) })
        for (const { key, size, modifiedAtMs } of page) {
          if (used.has(key)) pass.named++
          else if (modifiedAtMs < olderThanMs) {
            pass.orphans++
            pass.orphanBytes += size
            if (pass.candidates.length < CANDIDATES_MAX) pass.candidates.push(key)
          }
        }
        pass.objects += page.length
        looked += page.length
        pass.after = last.key
      }
      return undefined
    },
  }
}
