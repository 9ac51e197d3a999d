// `npm start -- adopt-store`: reports who owns the configured blob store. With `--yes`, it makes this database the
// owner.
//
// Use it when a region starts with a new database on existing bytes, when a store came from elsewhere, or when the
// marker was lost. It changes nothing else. No object is removed, and the sweep limits still apply, so a database
// without rows removes nothing later either. A region that owned the store before stops uploading and sweeping within a
// minute.

import { findStoreFacts, judgeOwner, takeStore } from '#shared/blobs/store-owner.ts'
import type { Config } from '#shared/config/load.ts'
import { blobKeysInUse } from '#shared/db/blob-keys.ts'
import { knownRows } from '#shared/db/store-owner.ts'
import { openRegion } from '#shared/region.ts'

/** Enough to distinguish a full store from an empty one. Counting all objects of a large store takes hours. */
const COUNT_MAX = 10_000
const PAGE = 1_000

/** Returns the exit code: 0 if the store belongs to this database. */
export async function adoptStore(config: Config, options: { yes: boolean }): Promise<number> {
  await using region = await openRegion(config, { unowned: true })
  const { db } = region
  const { blobs, owner } = await region.openStores()
  const say = (line: string) => process.stdout.write(`${line}\n`)
  const facts = await findStoreFacts(blobs, knownRows(db, blobs))
  const verdict = judgeOwner(facts, owner)
  const mine = `the database ${owner.database} of the region "${owner.region}"`
  if (verdict.kind === 'owned') {
    say(`The store ${blobs.place} already belongs to ${mine}.`)
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
    say(`To assign it to ${mine}: npm start -- adopt-store --yes`)
    return 1
  }
  await takeStore(blobs, owner)
  region.log.warn({ store: blobs.place, was: facts.marker, objects, named }, 'adopted the blob store')
  say(`It now belongs to ${mine}.`)
  if (named < objects)
    say('Objects without a row are kept. `npm start -- sweep` shows what a sweep would remove.')
  return 0
}
