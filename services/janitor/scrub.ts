// Checks blobs for damage, a bounded number in each run, cycling through the blobs in digest order.
//
// Pulls of whole blobs detect damage themselves. The scrub detects it in blobs that are rarely pulled, or pulled only
// in ranges. Blobs in files and in rows of the database are read and hashed. For an object store only the size is
// checked: services like S3 scrub their own disks, and reading a whole bucket costs money. A run ends after
// RUN_BYTES_MAX or RUN_BLOBS_MAX. A single blob may exceed the byte limit and is still read whole. 288 runs a day read
// 72 GB a day.
//
// A scrub begins at a random digest, so that a process restarted every night still covers all blobs over time. Each run
// first rechecks blobs marked as damaged: an operator may have restored a file or mounted a missing volume.

import { randomBytes } from 'node:crypto'
import { blobsAfter } from '#shared/db/blobs.ts'
import type { RegionWithStores } from '#shared/region.ts'
import type { BlobHealth } from '#shared/registry/blob-health.ts'

const RUN_BYTES_MAX = 256 * 1024 * 1024
const RUN_BLOBS_MAX = 500
/** The most damaged blobs rechecked in one run. */
const RUN_MARKED_MAX = 100

export interface ScrubResult {
  readonly looked: number
  readonly damaged: number
  readonly healed: number
}

/** The stores to check, and the component that decides whether a blob is damaged. */
export type Scrubbed = RegionWithStores & { readonly blobHealth: BlobHealth }

/** Each call of the returned function performs one run. */
export function createScrub(region: Scrubbed): (signal: AbortSignal) => Promise<ScrubResult> {
  let after = `sha256:${randomBytes(32).toString('hex')}`
  let afterMarked = ''

  async function lookAgain(signal: AbortSignal): Promise<number> {
    const page = { state: 'damaged', after: afterMarked, limit: RUN_MARKED_MAX } as const
    const rows = await blobsAfter(region.db, page)
    afterMarked = rows.length < RUN_MARKED_MAX ? '' : (rows.at(-1)?.digest ?? '')
    let healed = 0
    for (const row of rows) {
      if (signal.aborted) break
      if (await region.blobHealth.lookAgain(row, signal)) healed++
    }
    return healed
  }

  return async (signal) => {
    const healed = await lookAgain(signal)
    let damaged = 0
    let looked = 0
    let bytes = 0
    const page = { state: 'ready', after, limit: RUN_BLOBS_MAX } as const
    const rows = await blobsAfter(region.db, page)
    for (const row of rows) {
      if (signal.aborted || bytes >= RUN_BYTES_MAX) break
      const content = isCheapToRead(region, row.store)
      if ((await region.blobHealth.examine(row, { content, signal })) === 'damaged') damaged++
      looked++
      bytes += content ? row.size : 0
      after = row.digest
    }
    if (looked === rows.length && rows.length < RUN_BLOBS_MAX) after = ''
    return { looked, damaged, healed }
  }
}

function isCheapToRead(
  { blobs, smallBlobs }: Pick<RegionWithStores, 'blobs' | 'smallBlobs'>,
  store: string,
): boolean {
  return store === smallBlobs.store.name || (store === blobs.name && blobs.statIsLocal)
}
