// Counting before removing: a pass over all objects of the store, in pages, that finds which are orphans.
//
// An object is an orphan when it is older than the grace time by the store's own clock and nothing in the database
// needs it. A pass over a large store takes several runs, and `step` goes on where the last run stopped. A
// process that ends begins a new pass: nothing was removed yet. The keys found are kept in memory up to a bound, and
// counted beyond it; what is over the bound is found again by the next pass.

import { blobKeysInUse } from '#shared/db/blob-keys.ts'
import type { RegionWithStores } from '#shared/region.ts'
import type { Survey } from './sweep-limits.ts'

const PAGE = 500
/** Objects looked at in one run. */
const RUN_MAX = 100_000
/** Some 10 MB of keys. */
const CANDIDATES_MAX = 100_000

export interface FinishedSurvey extends Survey {
  /** Keys of orphans, at most 100,000: the ones to remove after another look. */
  readonly candidates: readonly string[]
}

export interface StoreSurvey {
  /**
   * Goes on for at most 100,000 objects. Returns the survey when the pass is complete, and begins anew.
   * @param olderThanMs what was written before, by the store's clock, is old
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
