// `npm start -- sweep`: reports what a sweep of the store would remove. With `--yes`, it removes these objects even if
// they exceed the sweep limits.
//
// The janitor blocks a sweep that would remove more than a tenth of the store, or more objects than the database ever
// knew. This command lets an operator inspect the result and allow that one sweep. All other protections still apply:
// the store's owner, the grace time, rows and open uploads, and the pause after a restore.

import type { Config } from '#shared/config/load.ts'
import { type Held, withLease } from '#shared/db/lease.ts'
import { raiseBlobsSeen } from '#shared/db/store-owner.ts'
import { openRegion, type RegionWithStores, withStores } from '#shared/region.ts'
import { createStoreSurvey, type FinishedSurvey } from './survey-store.ts'
import { sweepBlockedBy } from './sweep-limits.ts'
import { oldBefore, removeOrphans, sweepMustWait } from './sweep-orphans.ts'

/** Returns the exit code: 0 if the sweep ran, or if the limits do not block it. */
export async function sweep(config: Config, options: { yes: boolean }): Promise<number> {
  await using opened = await openRegion(config)
  const region = await withStores(opened)
  const abort = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => abort.abort())
  let code = 1
  const ran = await withLease(region.databaseUrl, 'janitor', async (lost, held) => {
    code = await sweepOnce(region, { ...options, held, signal: AbortSignal.any([abort.signal, lost]) })
  })
  if (!ran) say('The janitor of this region is running. Try again in a moment.')
  return code
}

async function sweepOnce(
  region: RegionWithStores,
  options: { yes: boolean; held: Held; signal: AbortSignal },
): Promise<number> {
  const { held, signal } = options
  const wait = await sweepMustWait(region)
  if (wait !== undefined) {
    say(`Sweeps are paused: ${wait}.`)
    return 1
  }
  const { founded } = await region.ownership.check()
  const olderThanMs = await oldBefore(region)
  const found = await wholeSurvey(region, olderThanMs, signal)
  if (found === undefined) return 1
  const seenMax = await raiseBlobsSeen(region.db, found.named)
  const { objects, named, orphans, orphanBytes } = found
  say(
    `The store ${region.blobs.place} holds ${objects} objects; ${named} of them have a row. ` +
      `${orphans} (${(orphanBytes / 2 ** 20).toFixed(1)} MiB) have no row and are older than ` +
      `${region.config.janitor.orphanGraceSeconds} s.`,
  )
  const blocked = sweepBlockedBy(found, { seenMax, founded })
  if (!options.yes) {
    if (blocked === undefined) return 0
    say(
      `The janitor does not remove them, because that is ${
        blocked === 'share'
          ? 'more than a tenth of the store'
          : `more than the ${seenMax} objects this database ever knew`
      }. To remove them: npm start -- sweep --yes`,
    )
    return 1
  }
  const removed = await removeOrphans(region, { found, olderThanMs, signal, held })
  say(`Removed ${removed}.`)
  if (orphans > found.candidates.length) say('More orphans remain. Run the command again.')
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
