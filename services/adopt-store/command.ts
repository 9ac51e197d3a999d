// `npm start -- adopt-store`: says who owns the blob store that is configured, and with `--yes` makes it this database's.
//
// For a region that starts with a new database on the old bytes, for a store that came from elsewhere, and for a marker
// that was lost. Nothing else changes: no object is removed by it, and the limits of the sweep hold afterwards, so that
// a database without rows erases nothing either. A region that owned the store before stops uploading and sweeping
// within a minute.

import { findStoreFacts, judgeOwner, takeStore } from '#shared/blobs/store-owner.ts'
import type { Config } from '#shared/config/load.ts'
import { blobKeysInUse } from '#shared/db/blob-keys.ts'
import { knownRows } from '#shared/db/store-owner.ts'
import { openRegion } from '#shared/region.ts'

/** Enough to tell a store that is full from one that is not; counting all of a large one takes hours. */
const COUNT_MAX = 10_000
const PAGE = 1_000

/** Returns the exit code: 0 when the store is this database's. */
export async function adoptStore(config: Config, options: { yes: boolean }): Promise<number> {
  await using region = await openRegion(config, { unowned: true })
  const { db } = region
  const { blobs, owner } = await region.openStores()
  const say = (line: string) => process.stdout.write(`${line}\n`)
  const facts = await findStoreFacts(blobs, knownRows(db, blobs))
  const verdict = judgeOwner(facts, owner)
  const mine = `the database ${owner.database} of the region "${owner.region}"`
  if (verdict.kind === 'owned') {
    say(`The store, ${blobs.place}, already belongs to ${mine}.`)
    return 0
  }
  let objects = 0
  let named = 0
  for (let after = ''; objects < COUNT_MAX; ) {
    const page = await blobs.list(after, PAGE)
    const last = page.at(-1)
    if (last === undefined) break
    objects += page.length
    named += (await blobKeysInUse(db, { store: blobs, keys: page.map(({ key }) => key) })).size
    after = last.key
  }
  const atLeast = objects >= COUNT_MAX ? 'at least ' : ''
  say(`The store is ${blobs.place}; it ${verdict.kind === 'refused' ? verdict.reason : 'has no owner'}.`)
  say(`It holds ${atLeast}${objects} objects; this database has rows for ${named} of them.`)
  if (!options.yes) {
    say(`To make it the store of ${mine}: npm start -- adopt-store --yes`)
    return 1
  }
  await takeStore(blobs, owner)
  region.log.warn({ store: blobs.place, was: facts.marker, objects, named }, 'the blob store was adopted')
  say(`It now belongs to ${mine}.`)
  if (named < objects)
    say('What has no row is left alone: `npm start -- sweep` says what a sweep would remove.')
  return 0
}
