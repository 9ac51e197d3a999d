// Removes bytes of small blobs that no blob row references. They are left behind if a process dies between a commit
// that kept an earlier upload's bytes and the removal of its own bytes, or while a blob moves to a store.
//
// The bytes and the row that references them are written by one statement in this database. No marker is therefore
// needed to identify the owner, and a restore cannot separate the two. Unlike the sweep of a store (sweep-orphans.ts),
// this sweep needs no limits. Each run examines a bounded number of rows, cycling through them in key order.

import { listBlobBytes, sweepBlobBytes } from '#shared/db/blob-bytes.ts'
import type { Held } from '#shared/db/lease.ts'
import type { RegionWithStores } from '#shared/region.ts'

const PAGE = 1_000
/** The most rows examined in one run. */
const RUN_MAX = 100_000

/**
 * Each call of the returned function performs one run and returns the number of rows removed.
 * @throws LeaseLostError if the lease is lost; nothing more is removed
 */
export function createRowSweep(
  region: RegionWithStores,
): (signal: AbortSignal, held: Held) => Promise<number> {
  const { db, smallBlobs } = region
  const { orphanGraceSeconds: graceSeconds } = region.config.janitor
  let after = ''

  return async (signal, held) => {
    let removed = 0
    for (let looked = 0; looked < RUN_MAX && !signal.aborted; looked += PAGE) {
      const page = await listBlobBytes(db, { after, limit: PAGE })
      const until = page.at(-1)?.key
      if (until !== undefined) {
        held.requireHeld()
        removed += await sweepBlobBytes(db, { store: smallBlobs.store.name, after, until, graceSeconds })
      }
      after = page.length < PAGE ? '' : (until ?? '')
      if (after === '') break
    }
    if (removed > 0) region.log.info({ removed }, 'removed orphaned bytes of small blobs')
    return removed
  }
}
