// Tests the stages of the lock order (shared/db/registers.ts) one by one. A session holds one row, and a writer is seen
// to wait for it. The writer then holds nothing of the later stages, however Postgres planned the statement.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { mountBlob } from '#shared/db/blobs.ts'
import { commitBlob } from '#shared/db/commit-blob.ts'
import { deleteMembership } from '#shared/db/memberships.ts'
import { type PushedReference, pushManifestRow } from '#shared/db/push-manifest.ts'
import type { Queryable } from '#shared/db/statement.ts'
import { deleteTag } from '#shared/db/tags.ts'
import { shardOf, type Tag } from '#shared/oci/reference.ts'
import { openTestDatabase, someoneWaits, type TestDatabase } from '../../support/database.ts'
import { eventually } from '../../support/eventually.ts'
import { INDEX, sha256 } from '../../support/image.ts'
import { linkBlob, manifestPush, provenance, push, repositoryName, tags } from '../../support/push.ts'

type Row = readonly [what: string, from: string]

const name = repositoryName('team/app')
const base = repositoryName('team/base')
const common = { repository: name, shard: shardOf(name), origin: 'eu', provenance }
const layers = ['one', 'two', 'three'].map((text) => sha256(text)).sort()
const [first, , last] = layers as [ReturnType<typeof sha256>, unknown, ReturnType<typeof sha256>]
const child = sha256('child')
const image = sha256('image')
const index = sha256('index')

/** Rows in lock order: the kind, and the condition that selects one. */
const repository: Row = ['repository', `repository where name = '${name}'`]
const member = (kind: 'blob' | 'manifest', digest: string): Row => [
  `membership of ${kind} ${digest.slice(7, 11)}`,
  `membership where kind = '${kind}' and digest = '${digest}'
     and repository_id = (select id from repository where name = '${name}')`,
]
const blob = (digest: string): Row => [`blob ${digest.slice(7, 11)}`, `blob where digest = '${digest}'`]
const tag = (text: string): Row => [`tag ${text}`, `tag where name = '${text}'`]
const manifest = (digest: string): Row => [
  `manifest ${digest.slice(7, 11)}`,
  `manifest where digest = '${digest}'`,
]
const allInOrder: readonly Row[] = [
  repository,
  ...layers.map((digest) => member('blob', digest)),
  ...[child, image, index].sort().map((digest) => member('manifest', digest)),
  ...layers.map(blob),
  ...[image, index].sort().map(manifest),
  tag('a'),
  tag('b'),
]
const allWithout = (...digests: string[]) =>
  allInOrder.filter(([, from]) => !digests.some((digest) => from.includes(digest)))

const reference = (options: Pick<PushedReference, 'kind' | 'target' | 'digest'>, position: number) => ({
  ...options,
  position,
  mandatory: true,
  required: true,
})
const references = [
  ...layers.toReversed().map((digest, index) => reference({ kind: 'layer', target: 'blob', digest }, index)),
  reference({ kind: 'child', target: 'manifest', digest: child }, 0),
]

const pushImage = (db: Queryable) =>
  pushManifestRow(
    db,
    manifestPush(name, 'image', { references: references.slice(0, 3), tags: tags('b', 'a') }),
  )
const pushIndex = (db: Queryable) =>
  pushManifestRow(db, manifestPush(name, 'index', { mediaType: INDEX, references, tags: tags('b', 'a') }))

async function setUp(t: TestContext): Promise<TestDatabase> {
  const database = await openTestDatabase(t)
  for (const text of ['one', 'two', 'three']) {
    await linkBlob(database.db, name, text)
    await linkBlob(database.db, base, text)
  }
  await push(database.db, name, 'child')
  await pushImage(database.db)
  await pushIndex(database.db)
  return database
}

/** Locks `held`, starts the writer, and returns which of the rows the writer has locked while it waits. */
async function lockedWhileWaiting(
  database: TestDatabase,
  held: Row,
  writer: (db: Queryable) => Promise<unknown>,
): Promise<string[]> {
  const holder = await database.session()
  await holder.query('begin')
  await holder.query(`select from ${held[1]} for update`)
  const waiting = database.db.transaction(writer)
  await eventually('the writer to wait', () => someoneWaits(database))
  const locked = []
  for (const [what, from] of allInOrder) {
    if (what === held[0]) continue
    const free = await database.query(`select from ${from} for update skip locked`)
    if (free.length === 0) locked.push(what)
  }
  await holder.query('rollback')
  await waiting
  return locked
}

const object = { key: 'k', size: 3, digest: last }

const writers: [what: string, stages: readonly Row[], write: (db: Queryable) => Promise<unknown>][] = [
  ['a push of an image', allWithout(child, index), pushImage],
  ['a push of an index', allWithout(image), pushIndex],
  [
    'a commit',
    [repository, member('blob', last), blob(last)],
    (db) => commitBlob(db, { ...common, store: 'file', object, upload: null }),
  ],
  [
    'a mount',
    [repository, member('blob', last), blob(last)],
    (db) => mountBlob(db, { ...common, from: base, digest: last }),
  ],
  [
    'a delete of a tag',
    [repository, tag('a')],
    (db) => deleteTag(db, { ...common, tag: tags('a')[0] as Tag }),
  ],
  [
    'a delete of a manifest',
    [repository, member('manifest', index)],
    (db) => deleteMembership(db, { ...common, kind: 'manifest', digest: index }),
  ],
]

for (const [what, stages, write] of writers) {
  test(`${what} that waits at a stage holds the stages before it and nothing behind`, async (t) => {
    const database = await setUp(t)
    for (const [place, held] of stages.entries()) {
      const before = stages.slice(0, place).map(([stage]) => stage)
      assert.deepEqual(await lockedWhileWaiting(database, held, write), before, `waits for ${held[0]}`)
      await pushIndex(database.db)
    }
  })
}

test('a mount of a blob that goes away before it is locked begins again, and finds nothing', async (t) => {
  const database = await setUp(t)
  const digest = await linkBlob(database.db, base, 'fleeting')
  const holder = await database.session()
  await holder.query('begin')
  await holder.query(`update blob set state = 'deleting' where digest = $1`, [digest])
  const mounting = mountBlob(database.db, { ...common, from: base, digest })
  await eventually('the mount to wait', () => someoneWaits(database))
  await holder.query('commit')
  assert.deepEqual(await mounting, { kind: 'unknown' })
  assert.deepEqual(await database.query(`select from ${member('blob', digest)[1]}`), [])
  assert.deepEqual(database.db.retries(), { serialization: 1, deadlock: 0 })
})

test('a push of a blob that goes away before it is locked begins again, and tells that it is missing', async (t) => {
  const database = await setUp(t)
  const holder = await database.session()
  await holder.query('begin')
  await holder.query(`update blob set state = 'deleting' where digest = $1`, [first])
  const before = await database.query('select count(*) from outbox')
  const pushing = pushIndex(database.db)
  await eventually('the push to wait', () => someoneWaits(database))
  await holder.query('commit')
  assert.deepEqual(await pushing, { kind: 'references-missing', digests: [first] })
  assert.deepEqual(await database.query('select count(*) from outbox'), before)
  assert.deepEqual(database.db.retries(), { serialization: 1, deadlock: 0 })
})
