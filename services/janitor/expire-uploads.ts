// Removes expired uploads. The row is deleted first, then the bytes. A crash in between leaves bytes without a row,
// which the orphan sweep removes.

import type { Held } from '#shared/db/lease.ts'
import { takeExpiredUploads } from '#shared/db/uploads.ts'
import type { RegionWithStores } from '#shared/region.ts'
import { abandonUpload } from '#shared/registry/commit-upload.ts'

const BATCH = 500
/** The most rows removed in one run, mostly of sessions that had already ended. The next run continues. */
const RUN_MAX = 1_000_000

/**
 * Returns the number of sessions removed.
 * @throws LeaseLostError if the lease is lost; no further rows are taken
 */
export async function expireUploads(
  region: RegionWithStores,
  signal: AbortSignal,
  held: Held,
): Promise<number> {
  let ended = 0
  let seen = 0
  while (seen < RUN_MAX && !signal.aborted) {
    held.requireHeld()
    const { taken, uploads } = await takeExpiredUploads(region.db, BATCH)
    if (uploads.length > 0) region.reach('expired-taken')
    for (const upload of uploads) await abandonUpload(region, upload)
    ended += uploads.length
    seen += taken
    if (taken < BATCH) break
  }
  if (ended > 0) region.log.info({ ended }, 'removed expired uploads')
  return ended
}
