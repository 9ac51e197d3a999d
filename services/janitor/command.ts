// `npm start -- sweep`: says what a sweep of the store would remove, and with `--yes` removes it whatever the limits say.
//
// The janitor stops by itself when a sweep would remove more than a tenth of the store or more than the database ever
// knew. Then a person looks here, and allows this one sweep. Everything else that protects bytes holds as ever: the
// store's owner, the grace time, rows and open uploads, the pause after a restore.

import type { Config } from '#shared/config/load.ts'
import { type Held, withLease } from '#shared/db/lease.ts'
import { raiseBlobsSeen } from '#shared/db/store-owner.ts'
import { openRegion, type RegionWithStores, withStores } from '#shared/region.ts'
import { createStoreSurvey, type FinishedSurvey } from './survey-store.ts'
import { sweepBlockedBy } from './sweep-limits.ts'
import { oldBefore, removeOrphans, sweepMustWait } from './sweep-orphans.ts'

/** Returns the exit code: 0 when the sweep was made, or nothing has to be allowed. */
export async function sweep(config: Config, options: { yes: boolean }): Promise<number> {
  await using opened = await openRegion(config)
  const region = await withStores(opened)
  const abort = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => abort.abort())
  let code = 1
  const ran = await withLease(region.databaseUrl, 'janitor', async (lost, held) => {
    code = await sweepOnce(region, { ...options, held, signal: AbortSignal.any([abort.signal, lost]) })
  })
  if (!ran) say('The janitor of this region is sweeping right now: try again in a moment.')
  return code
}

async function sweepOnce(
  region: RegionWithStores,
  options: { yes: boolean; held: Held; signal: AbortSignal },
): Promise<number> {
  const { held, signal } = options
  const wait = await sweepMustWait(region)
  if (wait !== undefined) {
    say(`Nothing is swept: ${wait}.`)
    return 1
  }
  const { founded } = await region.ownership.check()
  const olderThanMs = await oldBefore(region)
  const found = await wholeSurvey(region, olderThanMs, signal)
  if (found === undefined) return 1
  const seenMax = await raiseBlobsSeen(region.db, found.named)
  const { objects, named, orphans, orphanBytes } = found
  say(
    `The store, ${region.blobs.place}, holds ${objects} objects, ${named} of them with a row; ${orphans} (${(orphanBytes / 2 ** 20).toFixed(1)} MiB) have none and are older than ${region.config.janitor.orphanGraceSeconds} s.`,
  )
  const blocked = sweepBlockedBy(found, { seenMax, founded })
  if (!options.yes) {
    if (blocked === undefined) return 0
    say(
      `The janitor leaves them alone, because that is ${blocked === 'share' ? 'more than a tenth of the store' : `more than the ${seenMax} objects this database ever knew`}. If they may go: npm start -- sweep --yes`,
    )
    return 1
  }
  const removed = await removeOrphans(region, { found, olderThanMs, signal, held })
  say(`Removed ${removed}.`)
  if (orphans > found.candidates.length) say('There are more: run the command again.')
  return signal.aborted ? 1 : 0
}

async function wholeSurvey(
  region: RegionWithStores,
  olderThanMs: number,
  signal: AbortSignal,
): Promise<FinishedSurvey | undefined> {
  const survey = createStoreSurvey(region)
  while (!signal.aborted) {
    const found = await survey.step(olderThanMs, signal)
    if (found !== undefined) return found
  }
  return undefined
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}
