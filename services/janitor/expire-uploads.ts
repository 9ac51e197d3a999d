// Uploads that rested too long: the row goes first, then the bytes. Dying in between leaves bytes without a row, which
// the orphan sweep finds.

import type { Held } from '#shared/db/lease.ts'
import { takeExpiredUploads } from '#shared/db/uploads.ts'
import type { RegionWithStores } from '#shared/region.ts'

const BATCH = 100
/** Sessions ended in one run; what is left waits for the next. */
const RUN_MAX = 10_000

/**
 * Returns how many sessions were ended.
 * @throws LeaseLostError before the next rows are taken after the lease was lost
 */
export async function expireUploads(
  region: RegionWithStores,
  signal: AbortSignal,
  held: Held,
): Promise<number> {
  let ended = 0
  while (ended < RUN_MAX && !signal.aborted) {
    held.requireHeld()
    const uploads = await takeExpiredUploads(region.db, BATCH)
    if (uploads.length > 0) region.reach('expired-taken')
    for (const upload of uploads) await (await region.stores.named(upload.store)).abandon(upload.session)
    ended += uploads.length
    if (uploads.length < BATCH) break
  }
  if (ended > 0) region.log.info({ ended }, 'expired uploads were removed')
  return ended
}
