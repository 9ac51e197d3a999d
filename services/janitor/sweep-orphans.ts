// Removing bytes that no row names: what is left when a process dies between writing bytes and committing their row.
//
// The order of a sweep: the store's marker still names this database; the store's clock says what is old; a pass over
// the whole store counts (survey-store.ts); the limits allow what it found (sweep-limits.ts); then each page of
// orphans is looked up once more and removed. Uploads in parts that a store keeps out of its listing end the same way. Where
// one of these does not hold nothing is removed, one line is logged when that begins and one when it ends, and
// `portolan_sweep_blocked` is 1. A person who has looked can let one sweep through: command.ts.
//
// After the database was restored nothing is swept for a while: see shared/db/region.ts.

import { type Marker, StoreOwnerError } from '#shared/blobs/store-owner.ts'
import { blobKeysInUse, forgetDeadAttempts } from '#shared/db/blob-keys.ts'
import type { Held } from '#shared/db/lease.ts'
import { logWasCompared, sweepsPaused } from '#shared/db/region.ts'
import { raiseBlobsSeen } from '#shared/db/store-owner.ts'
import type { RegionWithStores } from '#shared/region.ts'
import { createStoreSurvey, type FinishedSurvey } from './survey-store.ts'
import { sweepBlockedBy } from './sweep-limits.ts'

const PAGE = 500

/** Each call is one run; returns how many orphans it removed. */
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

/** Why no sweep may run now, as the end of a sentence; undefined: it may. */
export async function sweepMustWait(region: RegionWithStores): Promise<string | undefined> {
  if (await sweepsPaused(region.db))
    return 'the database was restored or taken over within the last seven days'
  // Whether the database was restored is not known before Kafka was asked.
  if (region.config.kafka !== undefined && !(await logWasCompared(region.db)))
    return 'the log has not been compared with Kafka since the database started'
  return undefined
}

/** What was written before this is older than the grace time. By the store's clock, in milliseconds. */
export async function oldBefore(region: RegionWithStores): Promise<number> {
  return (await region.blobs.nowMs()) - region.config.janitor.orphanGraceSeconds * 1_000
}

/**
 * Looks at each candidate once more: what is needed by now stays. Returns how many were removed.
 * @throws LeaseLostError before the first removal after the lease was lost
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
    // A sweeper that was frozen since it looked must not remove what somebody has committed meanwhile.
    held.requireHeld()
    await blobs.remove(orphans)
    removed += orphans.length
  }
  if (removed > 0) region.log.info({ removed }, 'orphaned bytes were removed')
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
  owner: "nothing is swept: the blob store is not this database's",
  share:
    'nothing is swept: more than a tenth of the store has no row; see `npm start -- sweep` before you allow it',
  unknown:
    'nothing is swept: the store has more objects without a row than this database ever knew; see `npm start -- sweep`',
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
      if (blocked !== undefined) region.log.info('sweeps go on')
      blocked = undefined
      region.metrics.sweepBlocked(undefined)
    },
  }
}
