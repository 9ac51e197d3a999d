// Old blobs: the files of a region's store, as if they had been written days ago.

import { utimes } from 'node:fs/promises'
import { join } from 'node:path'
import type { RegionWithStores } from '#shared/region.ts'

const AGE_MS = 3 * 86_400_000

/** Gives every object of a file store an age of three days, which is more than the default grace time. */
export async function ageBlobs(region: RegionWithStores): Promise<void> {
  const { dataDir, region: name } = region.config
  const long = new Date(Date.now() - AGE_MS)
  for (const { key } of await region.blobs.list('', 1_000)) {
    await utimes(join(dataDir, name, 'blobs', key.slice(0, 2), key), long, long)
  }
}
