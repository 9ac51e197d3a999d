// Makes blobs look old: sets the modification time of a region's blob files to days ago.

import { utimes } from 'node:fs/promises'
import { join } from 'node:path'
import type { RegionWithStores } from '#shared/region.ts'

const AGE_MS = 3 * 86_400_000

/** Ages every object of a file store by three days, which exceeds the default grace time. */
export async function ageBlobs(region: RegionWithStores): Promise<void> {
  const { dataDir, region: name } = region.config
  const long = new Date(Date.now() - AGE_MS)
  for (const { key } of await region.blobs.list('', 1_000)) {
    await utimes(join(dataDir, name, 'blobs', key.slice(0, 2), key), long, long)
  }
}
