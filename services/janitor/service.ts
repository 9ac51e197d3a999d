// The janitor: everything periodic and destructive, in one audited place. Today: secrets that are still to be sealed,
// uploads that expired, bytes that no row names, and blobs whose bytes are damaged. One janitor works at a time in a
// region, whichever process gets the lease; each task is bounded per run and finds the rest the next time.

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
        // First: what stops a sweep is no reason to leave secrets in clear.
        if (region.sealer !== undefined) await sealStoredSecrets(region)
        await expireUploads(stored, ending, held)
        await sweepOrphans(ending, held)
        await sweepRows(ending, held)
        await scrub(ending)
      })
      // Another process works and tells whether sweeps are blocked.
      if (!ran) region.metrics.sweepBlocked(undefined)
    },
    onError: (error) => region.logFailure(error, 'the janitor failed; it will try again'),
  })
  return {
    name: 'janitor',
    async [Symbol.asyncDispose]() {
      await loop[Symbol.asyncDispose]()
      await blobHealth[Symbol.asyncDispose]()
    },
  }
}
