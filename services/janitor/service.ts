// The janitor: everything periodic and destructive, in one audited place. Today: uploads that expired and bytes that no
// row names. One janitor works at a time in a region, whichever process gets the lease; each task is bounded per run
// and finds the rest the next time.

import { withLease } from '#shared/db/lease.ts'
import { startLoop } from '#shared/loop.ts'
import type { Region } from '#shared/region.ts'
import type { Service } from '#shared/service.ts'
import { expireUploads } from './expire-uploads.ts'
import { createOrphanSweep } from './sweep-orphans.ts'

export async function startJanitor(region: Region): Promise<Service> {
  const sweepOrphans = createOrphanSweep(region)
  const loop = startLoop({
    everyMs: region.config.janitor.sweepSeconds * 1_000,
    run: async (signal) => {
      await withLease(region.databaseUrl, 'janitor', async (lost, held) => {
        const ending = AbortSignal.any([signal, lost])
        await expireUploads(region, ending)
        held.requireHeld()
        await sweepOrphans(ending, held)
      })
    },
    onError: (error) => region.logFailure(error, 'the janitor failed; it will try again'),
  })
  return { name: 'janitor', [Symbol.asyncDispose]: () => loop[Symbol.asyncDispose]() }
}
