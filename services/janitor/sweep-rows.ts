// Removing bytes of small blobs that no blob row names: what is left when a process dies between a commit that kept an
// earlier upload's bytes and the removal of its own, or while a blob moves to a store.
//
// Bytes and the row that names them are made in one statement, in this database. So no marker has to say whose the bytes
// are, and no restore can separate the two: unlike a sweep of a store (sweep-orphans.ts) this one needs no limits. It
// looks at a bounded number of rows in each run, round and round in the order of their keys.

import { listBlobBytes, sweepBlobBytes } from '#shared/db/blob-bytes.ts'
import type { Held } from '#shared/db/lease.ts'
import type { RegionWithStores } from '#shared/region.ts'

const PAGE = 1_000
/** Rows looked at in one run. */
const RUN_MAX = 100_000

/**
 * Each call is one run; returns how many rows it removed.
 * @throws LeaseLostError before the next rows are removed after the lease was lost
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
    if (removed > 0) region.log.info({ removed }, 'bytes of small blobs that no row names were removed')
    return removed
  }
}
