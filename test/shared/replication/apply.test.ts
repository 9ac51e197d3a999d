// Effects of one region's events in another: the same content shows there, invalid events are parked, and nothing
// deadlocks. test/simulation shows that all regions agree in every order.
// tests: shared/replication/apply.ts, shared/replication/merge.ts, shared/replication/parse-event.ts
// tests: shared/db/merge-registers.ts, shared/db/merge-tags.ts, shared/db/store-manifests.ts, shared/db/savepoint.ts
// tests: shared/db/conflicts.ts, shared/db/tell-conflicts.ts, shared/db/read-registers.ts

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { deleteConflicts, tagConflicts } from '#shared/db/conflicts.ts'
import { lookups } from '#shared/db/lookups.ts'
import { deleteMembership } from '#shared/db/memberships.ts'
import { placeAtPeer } from '#shared/db/places-at-peers.ts'
import { readRegisters } from '#shared/db/read-registers.ts'
import { deleteRepository } from '#shared/db/repositories.ts'
import { openSnapshotReader } from '#shared/db/snapshot-reader.ts'
import { deleteTag } from '#shared/db/tags.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { shardOf, type Tag } from '#shared/oci/reference.ts'
import { mergeRegisters } from '#shared/replication/merge.ts'
import {
  CONFIG,
  descriptor,
  INDEX,
  LAYER,
  manifestOf,
  sha256,
  type TestManifest,
} from '../../support/image.ts'
import {
  linkBlob,
  manifestPush,
  provenance,
  push as pushText,
  repositoryName,
  tags,
} from '../../support/push.ts'
import {
  eventsOf,
  follow,
  openRegionDatabase,
  type RegionDatabase,
  receive,
} from '../../support/two-regions.ts'

const name = repositoryName('team/app')
const shard = shardOf(name)
const start = { shard, epoch: 1, seq: 0 }

function image(text: string): TestManifest & { readonly layer: string } {
  const layer = `layer of ${text}`
  const bytes = Buffer.from(layer)
  const config = descriptor(CONFIG, bytes)
  return {
    ...manifestOf(`${CONFIG.replace('config', 'manifest')}`, { config, layers: [descriptor(LAYER, bytes)] }),
    layer,
  }
}

/** Pushes an image with its blob to a region. */
async function push({ db, name: origin }: RegionDatabase, text: string, ...names: string[]) {
  const { bytes, digest, mediaType, layer } = image(text)
  const blob = await linkBlob(db, name, layer)
  const reference = { target: 'blob' as const, position: 0, digest: blob, mandatory: true, required: true }
  const references = [
    { ...reference, kind: 'config' as const },
    { ...reference, kind: 'layer' as const },
  ]
  const facts = { repository: name, digest, size: bytes.length, mediaType }
  const outcome = await pushText(db, name, '', {
    ...manifestPush(name, ''),
    bytes,
    digest,
    mediaType,
    references,
    origin,
    facts,
    tags: tags(...names),
  })
  assert.equal(outcome.kind, 'pushed')
  return digest
}

async function twoRegions(t: TestContext) {
  const [us, eu] = [await openRegionDatabase(t, 'us'), await openRegionDatabase(t, 'eu')]
  const reader = openSnapshotReader(lookups, { url: eu.url, entriesMax: 1_000, onError: () => {} })
  t.after(() => reader[Symbol.asyncDispose]())
  const shows = async (reference: string) =>
    reader.read({ repository: name, kind: reference.includes(':') ? 'manifest' : 'tag', reference })
  return { us, eu, shows }
}

const common = { repository: name, shard, provenance }

/** Returns the data of a region's events of a type. */
async function toldOf(region: RegionDatabase, type: string): Promise<Record<string, unknown>[]> {
  const events = await eventsOf(region, start)
  return events.filter((event) => event.type.endsWith(`${type}.v1`)).map(({ data }) => ({ ...data }))
}
const firstPage = { repository: name, lastName: '', lastSubject: '', lastH: '0', limit: 100 }

test('a push shows in the other region with bytes, links and media type; a repeated one changes nothing', async (t) => {
  const { us, eu, shows } = await twoRegions(t)
  const digest = await push(us, 'one', 'v1', 'latest')
  await follow(us, eu, { shard })
  assert.deepEqual(await shows('v1'), { kind: 'manifest', digest, mediaType: image('one').mediaType })
  assert.deepEqual(await shows(digest), await shows('latest'))
  const [stored] = await eu.query<{ bytes: Buffer }>('select bytes from manifest')
  assert.deepEqual(stored?.bytes, image('one').bytes)
  const linked = await eu.query<{ digest: string }>(
    `select digest from membership where kind = 'blob' and alive_h > dead_h`,
  )
  assert.deepEqual(linked, [{ digest: sha256(image('one').layer) }])
  const before = await readRegisters(eu.db, { repository: name, tag: null })
  const events = await eventsOf(us, start)
  assert.deepEqual(await receive(eu, { origin: 'us', shard, events }), {
    applied: 0,
    parked: 0,
    repeated: events.length,
  })
  assert.deepEqual(await readRegisters(eu.db, { repository: name, tag: null }), before)
  assert.deepEqual(await tagConflicts(eu.db, firstPage), [])
})

test('every kind of delete takes effect in the other region, and a push after it revives', async (t) => {
  const { us, eu, shows } = await twoRegions(t)
  const digest = await push(us, 'one', 'v1', 'v2')
  await push(us, 'two', 'other')
  await us.db.transaction((tx) => deleteTag(tx, { ...common, origin: 'us', tag: 'v1' as Tag }))
  await follow(us, eu, { shard })
  assert.deepEqual(await eu.tags(name), ['other', 'v2'])
  await us.db.transaction((tx) => deleteMembership(tx, { ...common, origin: 'us', kind: 'manifest', digest }))
  await follow(us, eu, { shard })
  assert.deepEqual(await eu.tags(name), ['other'])
  assert.equal(await shows(digest), undefined)
  await us.db.transaction((tx) => deleteRepository(tx, { name, origin: 'us', provenance }))
  await follow(us, eu, { shard })
  assert.equal(await shows('other'), undefined)
  await push(us, 'one', 'v1')
  await follow(us, eu, { shard })
  assert.equal((await shows('v1'))?.digest, digest)
  assert.deepEqual(await deleteConflicts(eu.db, firstPage), [], 'all of it was seen')
})

test('a tag that two regions wrote has one winner in both, and the loser is reported in both', async (t) => {
  const { us, eu } = await twoRegions(t)
  const [ours, theirs] = [await push(eu, 'ours', 'v1'), await push(us, 'theirs', 'v1')]
  await follow(us, eu, { shard })
  await follow(eu, us, { shard })
  const winners = []
  for (const { db } of [us, eu]) {
    const conflicts = await tagConflicts(db, firstPage)
    assert.equal(conflicts.length, 1)
    const registers = await readRegisters(db, { repository: name, tag: 'v1' })
    winners.push(registers?.tags.get('v1')?.current.digest, conflicts[0]?.digest)
  }
  assert.deepEqual(winners.slice(0, 2), winners.slice(2))
  assert.deepEqual(new Set(winners), new Set([ours, theirs]))
  // The region that lost reports it, once.
  await follow(us, eu, { shard })
  const told = [...(await toldOf(us, 'tag.conflict')), ...(await toldOf(eu, 'tag.conflict'))]
  assert.equal(told.length, 1)
  assert.equal(told[0]?.digest, winners[1])
  assert.equal((told[0]?.winner as { digest?: string } | undefined)?.digest, winners[0])
  // The next push has seen both.
  await push(eu, 'ours', 'v1')
  await push(eu, 'theirs', 'v1')
  await follow(eu, us, { shard })
  for (const { db } of [us, eu])
    assert.deepEqual(await tagConflicts(db, firstPage), [], 'what was lost came back')
})

test('a delete that had not seen a push and kills it is reported in both regions; one that had is not', async (t) => {
  const { us, eu } = await twoRegions(t)
  const digest = await push(us, 'one', 'v1')
  await follow(us, eu, { shard })
  await push(us, 'one', 'unseen')
  await eu.db.transaction((tx) => deleteMembership(tx, { ...common, origin: 'eu', kind: 'manifest', digest }))
  await follow(us, eu, { shard })
  await follow(eu, us, { shard })
  for (const { db } of [us, eu]) {
    const killed = (await deleteConflicts(db, firstPage)).map(({ subject, origin, deadOrigin }) => [
      subject,
      origin,
      deadOrigin,
    ])
    assert.deepEqual(
      killed.toSorted(),
      [
        [digest, 'us', 'eu'],
        ['unseen', 'us', 'eu'],
      ].toSorted(),
    )
  }
})

test('what was told early and deleted is not reported as killed unseen', async (t) => {
  const { us, eu } = await twoRegions(t)
  const digest = await push(us, 'one', 'v1')
  const registers = await readRegisters(us.db, { repository: name, tag: 'v1' })
  assert.ok(registers)
  const early = { registers: new Map([[name as string, registers]]), shard, byLog: false }
  await eu.db.transaction((tx) => mergeRegisters(tx, early))
  await eu.db.transaction((tx) => deleteMembership(tx, { ...common, origin: 'eu', kind: 'manifest', digest }))
  await follow(us, eu, { shard })
  await follow(eu, us, { shard })
  for (const { db } of [us, eu]) assert.deepEqual(await deleteConflicts(db, firstPage), [])
})

test('an invalid event is parked with the reason and has no effect; the others are applied', async (t) => {
  const { us, eu, shows } = await twoRegions(t)
  await push(us, 'one', 'v1')
  const good = (await eventsOf(us, start)).filter(({ type }) => /put|set/.test(type))
  const [put, set] = good
  assert.ok(put && set)
  const farAhead = String(BigInt(Date.now() + 11 * 366 * 86_400_000) << 16n)
  const hostile: [reason: RegExp, event: CloudEvent, data: Record<string, unknown>][] = [
    [/`repository` is not a valid repository name/, put, { repository: '../etc' }],
    [
      /is not of shard/,
      put,
      { repository: ['a', 'b', 'c', 'd'].find((one) => shardOf(repositoryName(one)) !== shard) },
    ],
    [/`digest` is not a valid digest/, put, { digest: 'sha256:no' }],
    [/`content` does not match the digest/, put, { content: Buffer.from('other').toString('base64') }],
    [/the manifest: /, put, { digest: sha256('{}'), content: Buffer.from('{}').toString('base64') }],
    [/`version` is not a version/, put, { version: { h: '9223372036854775808', origin: 'us' } }],
    [/`version` is not a version/, put, { version: { h: '-1', origin: 'us' } }],
    [/`version` is not an object/, put, { version: null }],
    [/ten years ahead/, put, { version: { h: farAhead, origin: 'us' } }],
    [/a write of eu in the log of us/, put, { version: { h: '5', origin: 'eu' } }],
    [/a version of zero/, put, { version: { h: '0', origin: 'us' } }],
    [/`mediaType` is not a string/, put, { mediaType: 7 }],
    [/`tag` is not a valid tag/, set, { tag: '-' }],
    [/`written` is not a count/, set, { written: { epoch: 1.5, id: 2 } }],
  ]
  const events = [
    ...hostile.map(([, event, data], index) => ({
      ...event,
      id: `us:1:${shard}:${index + 1}`,
      data: { ...event.data, ...data },
    })),
    ...good.map((event, index) => ({ ...event, id: `us:1:${shard}:${hostile.length + index + 1}` })),
  ]
  const taken = await receive(eu, { origin: 'us', shard, events })
  assert.deepEqual(taken, { applied: good.length, parked: hostile.length, repeated: 0 })
  const parked = await eu.query<{ reason: string }>('select reason from parked_event order by seq')
  for (const [index, [reason]] of hostile.entries()) assert.match(parked[index]?.reason ?? '', reason)
  assert.deepEqual(await eu.query('select name from repository'), [{ name }])
  assert.ok(await shows('v1'))
  assert.deepEqual(await placeAtPeer(eu.db, { origin: 'us', shard }), { ...start, seq: events.length })
})

test('a child whose index arrives first, and lives longer than its own death, shows and has its links', async (t) => {
  const { us, eu, shows } = await twoRegions(t)
  const child = await push(us, 'child', 'child')
  await follow(us, eu, { shard })
  // The child is deleted here while the other region pushes an index of it.
  await eu.db.transaction((tx) =>
    deleteMembership(tx, { ...common, origin: 'eu', kind: 'manifest', digest: child }),
  )
  const blob = sha256(image('child').layer)
  await eu.db.transaction((tx) =>
    deleteMembership(tx, { ...common, origin: 'eu', kind: 'blob', digest: blob }),
  )
  const { bytes, size, mediaType } = { ...image('child'), size: image('child').bytes.length }
  const index = manifestOf(INDEX, { manifests: [{ mediaType, digest: child, size }] })
  await pushText(us.db, name, '', {
    ...manifestPush(name, ''),
    ...index,
    origin: 'us',
    facts: { repository: name, digest: index.digest, size: index.bytes.length, mediaType: INDEX },
    references: [
      { kind: 'child', target: 'manifest', position: 0, digest: child, mandatory: true, required: true },
    ],
    tags: tags('index'),
  })
  await follow(us, eu, { shard })
  await follow(eu, us, { shard })
  assert.equal((await shows('index'))?.digest, index.digest)
  assert.equal((await shows(child))?.digest, child, `of ${bytes.length} bytes`)
  assert.equal(await shows('child'), undefined, 'its tag is as dead as it was')
  for (const { query } of [us, eu]) {
    const [link] = await query<{ linked: boolean }>(
      `select alive_h > dead_h as linked from membership where kind = 'blob' and digest = $1`,
      [blob],
    )
    assert.equal(link?.linked, true)
  }
})

test('concurrent pushes, deletes and merges of the same content do not deadlock, and converge', async (t) => {
  const [us, eu] = [await openRegionDatabase(t, 'us'), await openRegionDatabase(t, 'eu')]
  const texts = ['a', 'b', 'c', 'd']
  const names = ['one', 'three', 'two']
  const write = async (region: RegionDatabase, round: number) => {
    const text = texts[round % texts.length] ?? ''
    const digest = await push(region, text, ...(round % 2 === 0 ? names : names.toReversed()))
    const { db, name: origin } = region
    if (round % 5 === 2)
      await db.transaction((tx) => deleteMembership(tx, { ...common, origin, kind: 'manifest', digest }))
    if (round % 7 === 3) await db.transaction((tx) => deleteTag(tx, { ...common, origin, tag: 'two' as Tag }))
    if (round % 11 === 4) await db.transaction((tx) => deleteRepository(tx, { name, origin, provenance }))
  }
  const writer = async (region: RegionDatabase, from: number) => {
    for (let round = from; round < from + 12; round++)
      // Another writer may delete the repository between the blob and the manifest.
      await write(region, round).catch((thrown) => assert.ok(thrown instanceof assert.AssertionError))
  }
  let writing = true
  const follower = async (from: RegionDatabase, to: RegionDatabase) => {
    while (writing) await follow(from, to, { shard, batch: 7 })
  }
  const following = Promise.all([follower(us, eu), follower(eu, us)])
  await Promise.all([0, 1, 2].flatMap((from) => [writer(us, from), writer(eu, from + 1)]))
  writing = false
  await following
  await follow(us, eu, { shard })
  await follow(eu, us, { shard })
  assert.equal(us.db.retries().deadlock + eu.db.retries().deadlock, 0)
  const [ours, theirs] = [eu, us].map((region) => region.tags(name))
  assert.deepEqual(await ours, await theirs)
  for (const what of [tagConflicts, deleteConflicts] as const) {
    const all = { ...firstPage, limit: 10_000 }
    const [here, there] = [await what(eu.db, all), await what(us.db, all)]
    assert.ok(JSON.stringify(here) === JSON.stringify(there), `${here.length} and ${there.length}`)
  }
})
