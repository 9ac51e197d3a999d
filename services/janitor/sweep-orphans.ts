// Bytes that no row names: what is left when a process dies between writing bytes and committing their row.
//
// The store is paged through in key order, a bounded number of objects a run, going on where the last run stopped. An
// object is an orphan when it is older than the grace time (which is longer than any upload takes), no blob row names
// its key and no open session holds it; uploads in parts that a store keeps out of its listing are ended likewise. Sessions are read after the listing: one that commits in between has its row
// by then. After the database was restored nothing is swept for a while: see shared/db/region.ts.

import { knownKeys } from '#shared/db/blobs.ts'
import type { Held } from '#shared/db/lease.ts'
import { logWasCompared, sweepsPaused } from '#shared/db/region.ts'
import { uploadPartsPage } from '#shared/db/uploads.ts'
import type { Region } from '#shared/region.ts'

const PAGE = 500
/** Objects looked at in one run. */
const RUN_MAX = 20_000
const FIRST_ID = '00000000-0000-0000-0000-000000000000'

/** Each call is one run; returns how many orphans it removed. */
export function createOrphanSweep(region: Region): (signal: AbortSignal, held?: Held) => Promise<number> {
  let after = ''
  return async (signal, held) => {
    if (await sweepsPaused(region.db)) return 0
    // Whether the database was restored is not known before Kafka was asked.
    if (region.config.kafka !== undefined && !(await logWasCompared(region.db))) return 0
    const graceMs = region.config.janitor.orphanGraceSeconds * 1_000
    let removed = await region.blobs.dropUnfinished(Date.now() - graceMs, (keys) => keysInUse(region, keys))
    for (let looked = 0; looked < RUN_MAX && !signal.aborted; ) {
      const page = await region.blobs.list(after, PAGE)
      const last = page.at(-1)
      if (last === undefined) {
        after = ''
        break
      }
      const oldestMs = Date.now() - graceMs
      const old = page.filter(({ modifiedAtMs }) => modifiedAtMs < oldestMs).map(({ key }) => key)
      const orphans = await withoutRow(region, old)
      held?.requireHeld()
      await region.blobs.remove(orphans)
      removed += orphans.length
      looked += page.length
      after = last.key
    }
    if (removed > 0) region.log.info({ removed }, 'orphaned bytes were removed')
    return removed
  }
}

async function withoutRow(region: Region, keys: readonly string[]): Promise<string[]> {
  if (keys.length === 0) return []
  const used = await keysInUse(region, keys)
  return keys.filter((key) => !used.has(key))
}

/** Of the keys, those that a row names, be it a blob's or a session's. */
async function keysInUse(region: Region, keys: readonly string[]): Promise<Set<string>> {
  const held = await keysOfSessions(region, new Set(keys))
  const named = await knownKeys(region.db, { store: region.blobs.name, keys })
  return held.union(named)
}

/** Of the keys, those that open sessions hold. A session's parts are the store's notes: their keys are strings in it. */
async function keysOfSessions(region: Region, keys: ReadonlySet<string>): Promise<Set<string>> {
  const held = new Set<string>()
  for (let after = FIRST_ID; ; ) {
    const page = await uploadPartsPage(region.db, { store: region.blobs.name, after, limit: PAGE })
    for (const key of page.flatMap(({ parts }) => region.blobs.keysOf(parts)))
      if (keys.has(key)) held.add(key)
    const last = page.at(-1)
    if (last === undefined || page.length < PAGE) return held
    after = last.id
  }
}
