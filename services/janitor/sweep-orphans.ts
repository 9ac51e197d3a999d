// Removes bytes that no row references. A process leaves them behind if it dies after writing bytes and before
// committing their row.
//
// A sweep runs in this order. It checks that the store's marker names this database. It computes the age limit from the
// store's clock. A pass over the whole store counts the objects (survey-store.ts), and the limits must allow the result
// (sweep-limits.ts). Each page of orphans is then looked up once more and removed. Multipart uploads that a store does
// not list are removed the same way. If the owner check or a limit fails, nothing is removed: one line is logged when
// this state begins and one when it ends, and `portolan_sweep_blocked` is 1. An operator can allow a single sweep
// (command.ts).
//
// After a restore of the database, sweeps are paused for a while (see shared/db/region.ts).

import { type Marker, StoreOwnerError } from '#shared/blobs/store-owner.ts'
import { blobKeysInUse, forgetDeadAttempts } from '#shared/db/blob-keys.ts'
import type { Held } from '#shared/db/lease.ts'
import { logWasCompared, sweepsPaused } from '#shared/db/region.ts'
import { raiseBlobsSeen } from '#shared/db/store-owner.ts'
import type { RegionWithStores } from '#shared/region.ts'
import { createStoreSurvey, type FinishedSurvey } from './survey-store.ts'
import { sweepBlockedBy } from './sweep-limits.ts'

const PAGE = 500

/** Each call of the returned function performs one run and returns the number of orphans removed. */
export function createOrphanSweep(
  region: RegionWithStores,
): (signal: AbortSignal, held: Held) => Promise<number> {
  const survey = createStoreSurvey(region)
  const block = createBlock(region)
  return async (signal, held) => {
    if ((await sweepMustWait(region)) !== undefined) return 0
    const marker = await markerIfOurs(region, block)
    if (marker === undefined) return 0
    held.requireHeld()
    await forgetDeadAttempts(region.db)
    const olderThanMs = await oldBefore(region)
    const found = await survey.step(olderThanMs, signal)
    if (found === undefined) return 0
    const seenMax = await raiseBlobsSeen(region.db, found.named)
    const reason = sweepBlockedBy(found, { seenMax, founded: marker.founded })
    if (reason !== undefined) {
      block.set(reason, countsOf(found, seenMax))
      return 0
    }
    block.clear()
    return removeOrphans(region, { found, olderThanMs, signal, held })
  }
}

/** Returns why no sweep may run now, as the end of a sentence, or undefined if a sweep may run. */
export async function sweepMustWait(region: RegionWithStores): Promise<string | undefined> {
  if (await sweepsPaused(region.db))
    return 'the database was restored or taken over within the last seven days'
  // Only the comparison with Kafka shows whether the database was restored.
  if (region.config.kafka !== undefined && !(await logWasCompared(region.db)))
    return 'the log has not been compared with Kafka since the database started'
  return undefined
}

/** Objects written before this time exceed the grace time. In milliseconds, by the store's clock. */
export async function oldBefore(region: RegionWithStores): Promise<number> {
  return (await region.blobs.nowMs()) - region.config.janitor.orphanGraceSeconds * 1_000
}

/**
 * Checks each candidate again and removes those that are still orphans. Returns the number removed.
 * @throws LeaseLostError if the lease is lost; nothing more is removed
 */
export async function removeOrphans(
  region: RegionWithStores,
  options: { found: FinishedSurvey; olderThanMs: number; signal: AbortSignal; held: Held },
): Promise<number> {
  const { found, olderThanMs, signal, held } = options
  const { blobs, db } = region
  const inUse = (keys: readonly string[]) => blobKeysInUse(db, { store: blobs, keys })
  held.requireHeld()
  let removed = await blobs.dropUnfinished(olderThanMs, inUse)
  for (let from = 0; from < found.candidates.length && !signal.aborted; from += PAGE) {
    const page = found.candidates.slice(from, from + PAGE)
    const used = await inUse(page)
    const orphans = page.filter((key) => !used.has(key))
    // A sweeper that was frozen since the lookup must not remove objects committed in the meantime.
    held.requireHeld()
    await blobs.remove(orphans)
    removed += orphans.length
  }
  if (removed > 0) region.log.info({ removed }, 'removed orphans')
  return removed
}

async function markerIfOurs(region: RegionWithStores, block: Block): Promise<Marker | undefined> {
  try {
    return await region.ownership.check()
  } catch (thrown) {
    if (!(thrown instanceof StoreOwnerError)) throw thrown
    block.set('owner', { error: thrown })
    return undefined
  }
}

function countsOf({ objects, named, orphans, orphanBytes }: FinishedSurvey, seenMax: number): object {
  return { objects, named, orphans, orphanBytes, seenMax }
}

interface Block {
  set(reason: 'owner' | 'share' | 'unknown', facts: object): void
  clear(): void
}

const SENTENCES = Object.freeze({
  owner: 'sweeps are blocked: the blob store does not belong to this database',
  share:
    'sweeps are blocked: more than a tenth of the store has no row; inspect it with `npm start -- sweep`',
  unknown:
    'sweeps are blocked: more objects have no row than this database ever knew; inspect it with `npm start -- sweep`',
})

function createBlock(region: RegionWithStores): Block {
  let blocked: keyof typeof SENTENCES | undefined
  return {
    set(reason, facts) {
      if (blocked !== reason) region.log.error({ reason, ...facts }, SENTENCES[reason])
      blocked = reason
      region.metrics.sweepBlocked(reason)
    },
    clear() {
      if (blocked !== undefined) region.log.info('sweeps resumed')
      blocked = undefined
      region.metrics.sweepBlocked(undefined)
    },
  }
}
