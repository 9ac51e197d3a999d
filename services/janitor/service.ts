// The janitor: all periodic and destructive work, in one place that is easy to audit. It seals secrets that are still
// stored in clear text, removes expired uploads, removes bytes that no row references, and checks blobs for damage. In
// a region one janitor works at a time: the process that holds the lease. Each task is bounded per run and continues in
// the next run.

import { withLease } from '#shared/db/lease.ts'
import { sealStoredSecrets } from '#shared/db/seal-stored-secrets.ts'
import { startLoop } from '#shared/loop.ts'
import { type Region, withStores } from '#shared/region.ts'
import { createBlobHealth } from '#shared/registry/blob-health.ts'
import type { Service } from '#shared/service.ts'
import { expireUploads } from './expire-uploads.ts'
import { createScrub } from './scrub.ts'
import { createOrphanSweep } from './sweep-orphans.ts'
import { createRowSweep } from './sweep-rows.ts'

export async function startJanitor(region: Region): Promise<Service> {
  const stored = await withStores(region)
  const { db, log, metrics } = region
  const blobHealth = createBlobHealth({ db, stores: stored.stores, log, metrics })
  const sweepOrphans = createOrphanSweep(stored)
  const sweepRows = createRowSweep(stored)
  const scrub = createScrub({ ...stored, blobHealth })
  const loop = startLoop({
    everyMs: region.config.janitor.sweepSeconds * 1_000,
    run: async (signal) => {
      const ran = await withLease(region.databaseUrl, 'janitor', async (lost, held) => {
        const ending = AbortSignal.any([signal, lost])
        // Runs first, so that a failing sweep does not leave secrets in clear text.
        if (region.sealer !== undefined) await sealStoredSecrets(region)
        await expireUploads(stored, ending, held)
        await sweepOrphans(ending, held)
        await sweepRows(ending, held)
        await scrub(ending)
      })
      // Another process holds the lease and reports whether sweeps are blocked.
      if (!ran) region.metrics.sweepBlocked(undefined)
    },
    onError: (error) => region.logFailure(error, 'the janitor failed; will retry'),
  })
  return {
    name: 'janitor',
    async [Symbol.asyncDispose]() {
      await loop[Symbol.asyncDispose]()
      await blobHealth[Symbol.asyncDispose]()
    },
  }
}
