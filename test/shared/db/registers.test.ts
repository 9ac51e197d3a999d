// The rules of the registers: what the version of a write exceeds, what is visible, what a delete costs, what is
// recorded.
// tests: shared/db/lookups.ts, shared/db/memberships.ts, shared/db/provenance.ts, shared/db/push-manifest.ts
// tests: shared/db/repositories.ts, shared/db/tags.ts, shared/db/pages.ts

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { lookups } from '#shared/db/lookups.ts'
import { deleteMembership } from '#shared/db/memberships.ts'
import { pages } from '#shared/db/pages.ts'
import { pushManifestRow } from '#shared/db/push-manifest.ts'
import { deleteRepository, ensureRepository, repositoryExists } from '#shared/db/repositories.ts'
import { openSnapshotReader } from '#shared/db/snapshot-reader.ts'
import { deleteTag, tagRegister } from '#shared/db/tags.ts'
import type { Digest } from '#shared/oci/digest.ts'
import { shardOf } from '#shared/oci/reference.ts'
import { openTestDatabase, type TestDatabase } from '../../support/database.ts'
import { INDEX, sha256 } from '../../support/image.ts'
import { linkBlob, manifestPush, provenance, push, repositoryName, tags } from '../../support/push.ts'

const name = repositoryName('team/app')
const common = { repository: name, shard: shardOf(name), origin: 'eu', provenance }
const [v1] = tags('v1')
assert.ok(v1)

async function setUp(t: TestContext) {
  const database = await openTestDatabase(t)
  const reader = openSnapshotReader(lookups, { url: database.url, entriesMax: 1_000, onError: () => {} })
  t.after(() => reader[Symbol.asyncDispose]())
  const lists = openSnapshotReader(pages, { url: database.url, entriesMax: 1_000, onError: () => {} })
  t.after(() => lists[Symbol.asyncDispose]())
  const listed = async (repository: typeof name | undefined) =>
    (await lists.read({ repository, last: '', limit: 10 }))?.names
  const visible = async (reference: string) => {
    const kind = reference.includes(':') ? 'manifest' : 'tag'
    return (await reader.read({ repository: name, kind, reference }))?.digest
  }
  return { ...database, visible, listed }
}

const deleteDigest = (database: TestDatabase, digest: Digest) =>
  database.db.transaction((transaction) =>
    deleteMembership(transaction, { ...common, kind: 'manifest', digest }),
  )

/** Simulates that another region, whose clock is a day ahead, wrote last. */
const A_DAY_AHEAD = `hlc_now() + (86400000::bigint << 16)`

test('a push is visible by tag and digest, and its events carry its versions in the order of its locks', async (t) => {
  const { db, query, visible } = await setUp(t)
  const outcome = await push(db, name, 'one', { tags: tags('v2', 'v1') })
  assert.equal(outcome.kind, 'pushed')
  assert.equal(await visible('v1'), sha256('one'))
  assert.equal(await visible(sha256('one')), sha256('one'))
  const events = await query<{
    type: string
    subject: string
    content: Buffer | null
    payload: Record<string, unknown>
  }>('select type, subject, content, payload from outbox order by id')
  assert.deepEqual(
    events.map(({ type, subject }) => [type.replace('dev.portolan.registry.', ''), subject]),
    [
      ['manifest.put.v1', `team/app@${sha256('one')}`],
      ['tag.set.v1', 'team/app:v1'],
      ['tag.set.v1', 'team/app:v2'],
      ['push.v1', `team/app@${sha256('one')}`],
    ],
  )
  assert.equal(events[0]?.content?.toString(), 'one')
  assert.equal(events[1]?.content, null)
  const register = await tagRegister(db, { repository: name, tag: v1 })
  assert.deepEqual(events[1]?.payload.version, { h: String(register?.h), origin: 'eu' })
  assert.deepEqual(events[1]?.payload.prev, { h: '0', origin: '' })
})

test('the same bytes pushed again bump every register and write their events again', async (t) => {
  const { db, query } = await setUp(t)
  await push(db, name, 'one', { tags: tags('v1') })
  const before = await tagRegister(db, { repository: name, tag: v1 })
  await push(db, name, 'one', { tags: tags('v1') })
  const after = await tagRegister(db, { repository: name, tag: v1 })
  assert.ok(before && after && after.h > before.h)
  const [last] = await query<{ prev: string }>(
    `select payload #>> '{prev,h}' as prev from outbox where type like '%tag.set%' order by id desc limit 1`,
  )
  assert.equal(last?.prev, String(before.h))
  const [count] = await query<{ outbox: string; history: string }>(
    'select (select count(*) from outbox) as outbox, (select count(*) from tag_history) as history',
  )
  assert.deepEqual(count, { outbox: '6', history: '2' })
})

for (const [what, sql] of [
  ['its membership died', `update membership set dead_h = ${A_DAY_AHEAD}, dead_origin = 'us'`],
  ['its repository died', `update repository set dead_h = ${A_DAY_AHEAD}, dead_origin = 'us'`],
  ['its tag was written', `update tag set h = ${A_DAY_AHEAD}, origin = 'us'`],
  ['its membership was written', `update membership set alive_h = ${A_DAY_AHEAD}, alive_origin = 'us'`],
] as const) {
  test(`a push after ${what} in a region with a fast clock is not dead on arrival`, async (t) => {
    const { db, query, visible } = await setUp(t)
    await push(db, name, 'one', { tags: tags('v1') })
    await query(sql)
    assert.equal((await push(db, name, 'one', { tags: tags('v1') })).kind, 'pushed')
    assert.equal(await visible('v1'), sha256('one'))
    assert.equal(await visible(sha256('one')), sha256('one'))
    const [row] = await query<{ exceeds: boolean }>(
      `select bool_and(t.h > m.dead_h and t.h > r.dead_h and m.alive_h > m.dead_h and t.h >= m.alive_h) as exceeds
       from tag t join membership m on m.digest = t.digest join repository r on r.id = t.repository_id`,
    )
    assert.equal(row?.exceeds, true)
  })
}

test('a tag is visible only while it is newer than the death of what it points to and of its repository', async (t) => {
  const { db, query, visible, listed } = await setUp(t)
  await push(db, name, 'one', { tags: tags('v1') })
  await query('update membership set dead_h = (select h from tag) + 1, alive_h = (select h from tag) + 2')
  assert.equal(await visible('v1'), undefined, 'the tag is older than the death')
  assert.equal(await visible(sha256('one')), sha256('one'), 'the membership was written after it')
  assert.deepEqual(await listed(name), [])
  await push(db, name, 'one', { tags: tags('v1') })
  assert.equal(await visible('v1'), sha256('one'))
})

test('deleting a digest takes every tag on it at once, in constant work, and no tag row is written', async (t) => {
  const database = await setUp(t)
  const { db, query, visible, listed } = database
  const many = Array.from({ length: 1_000 }, (_, index) => `t${index}`)
  await push(db, name, 'one', { tags: tags(...many) })
  await push(db, name, 'two', { tags: tags('other') })
  const [before] = await query<{ h: string }>('select sum(h) as h from tag')
  assert.equal((await deleteDigest(database, sha256('one'))).kind, 'deleted')
  for (const tag of ['t0', 't999']) assert.equal(await visible(tag), undefined)
  assert.equal(await visible('other'), sha256('two'))
  assert.deepEqual(await listed(name), ['other'])
  assert.deepEqual(await query('select sum(h) as h from tag'), [before])
  const [dead] = await query<{ newest: boolean }>(
    'select dead_h > (select max(h) from tag where digest = membership.digest) as newest from membership where digest = $1',
    [sha256('one')],
  )
  assert.equal(dead?.newest, true)
  assert.equal((await deleteDigest(database, sha256('one'))).kind, 'unknown', 'once')
})

test('a tag that pointed elsewhere before stays with its new digest when the old one is deleted', async (t) => {
  const database = await setUp(t)
  await push(database.db, name, 'one', { tags: tags('v1') })
  await push(database.db, name, 'two', { tags: tags('v1') })
  await deleteDigest(database, sha256('one'))
  assert.equal(await database.visible('v1'), sha256('two'))
})

test('a deleted tag leaves a tombstone with its digest, a history and two events; a second delete finds nothing', async (t) => {
  const { db, query, visible } = await setUp(t)
  await push(db, name, 'one', { tags: tags('v1') })
  const deletion = () => db.transaction((transaction) => deleteTag(transaction, { ...common, tag: v1 }))
  assert.notEqual(await deletion(), undefined)
  assert.equal(await deletion(), undefined)
  assert.equal(await visible('v1'), undefined)
  assert.equal(await visible(sha256('one')), sha256('one'))
  const register = await tagRegister(db, { repository: name, tag: v1 })
  assert.equal(register?.alive, false)
  assert.equal(register?.digest, sha256('one'))
  const history = await query<{ alive: boolean; chained: boolean }>(
    'select alive, prev_h = coalesce(lag(h) over (order by id), 0) as chained from tag_history order by id',
  )
  assert.deepEqual(history, [
    { alive: true, chained: true },
    { alive: false, chained: true },
  ])
  const types = await query<{ type: string }>('select type from outbox order by id desc limit 2')
  assert.deepEqual(
    types.map(({ type }) => type),
    ['dev.portolan.registry.delete.v1', 'dev.portolan.registry.tag.deleted.v1'],
  )
})

test('a repository dies with everything in it and comes back empty with the next push', async (t) => {
  const { db, visible, listed } = await setUp(t)
  await push(db, name, 'one', { tags: tags('v1') })
  await db.transaction((transaction) => deleteRepository(transaction, { name, origin: 'eu', provenance }))
  assert.equal(await repositoryExists(db, name), false)
  assert.deepEqual(await listed(undefined), [])
  assert.equal(await visible('v1'), undefined)
  assert.equal((await pushManifestRow(db, manifestPush(name, 'two'))).kind, 'repository-missing')
  await push(db, name, 'two', { tags: tags('v2') })
  assert.equal(await repositoryExists(db, name), true)
  assert.equal(await visible('v1'), undefined, 'what was deleted stays deleted')
  assert.equal(await visible('v2'), sha256('two'))
})

test('every reference that must be here is, or the push does nothing and says which are not', async (t) => {
  const { db, query } = await setUp(t)
  const here = await linkBlob(db, name, 'here')
  const elsewhere = await linkBlob(db, repositoryName('other'), 'elsewhere')
  const reference = (digest: Digest, position: number) => ({
    kind: 'layer' as const,
    target: 'blob' as const,
    position,
    digest,
    mandatory: true,
    required: true,
  })
  const outcome = await push(db, name, 'one', {
    tags: tags('v1'),
    references: [
      reference(here, 0),
      reference(elsewhere, 1),
      reference(sha256('nowhere'), 2),
      reference(here, 3),
    ],
  })
  assert.deepEqual(outcome, { kind: 'references-missing', digests: [elsewhere, sha256('nowhere')].sort() })
  const [counts] = await query<Record<string, string>>(
    `select (select count(*) from manifest) as manifests, (select count(*) from tag) as tags,
       (select count(*) from membership where kind = 'manifest') as members, (select count(*) from manifest_reference) as refs`,
  )
  assert.deepEqual(counts, { manifests: '0', tags: '0', members: '0', refs: '0' })
})

test('an optional reference counts as required from the first push that finds it', async (t) => {
  const { db, query } = await setUp(t)
  const child = {
    kind: 'child' as const,
    target: 'manifest' as const,
    position: 0,
    digest: sha256('child'),
    mandatory: false,
    required: true,
  }
  const required = async () =>
    (await query<{ required: boolean }>('select required from manifest_reference'))[0]?.required
  await push(db, name, 'index', { mediaType: INDEX, references: [child] })
  assert.equal(await required(), false)
  await push(db, name, 'child')
  await push(db, name, 'index', { mediaType: INDEX, references: [child] })
  assert.equal(await required(), true)
})

test('the same bytes under another media type are refused while they live, in this repository only', async (t) => {
  const database = await setUp(t)
  const { db } = database
  const digest = await linkBlob(db, name, 'layer')
  const references = [
    { kind: 'layer' as const, target: 'blob' as const, position: 0, digest, mandatory: true, required: true },
  ]
  await push(db, name, 'one', { references })
  assert.equal(
    (await push(db, name, 'one', { references, mediaType: INDEX })).kind,
    'media-type-differs',
    'and does not begin again for ever',
  )
  assert.equal((await push(db, repositoryName('other'), 'one', { mediaType: INDEX })).kind, 'pushed')
  await deleteDigest(database, sha256('one'))
  assert.equal((await push(db, name, 'one', { mediaType: INDEX })).kind, 'pushed')
})

test('two sessions that make one repository agree on one row', async (t) => {
  const { db, query } = await setUp(t)
  await Promise.all(Array.from({ length: 16 }, () => ensureRepository(db, { name, origin: 'eu' })))
  assert.equal((await query('select from repository')).length, 1)
})

test('bytes larger than an event may carry travel by digest', async (t) => {
  const { db, query } = await setUp(t)
  await push(db, name, 'x'.repeat(256 * 1024))
  await push(db, name, 'x'.repeat(256 * 1024 + 1))
  const rows = await query<{ inline: boolean }>(
    `select content is not null as inline from outbox where type like '%manifest.put%' order by id`,
  )
  assert.deepEqual(rows, [{ inline: true }, { inline: false }])
})
