import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { deleteMembership } from '#shared/db/memberships.ts'
import { overwrittenByPush } from '#shared/db/overwritten.ts'
import { pushManifestRow } from '#shared/db/push-manifest.ts'
import { deleteRepository, ensureRepository } from '#shared/db/repositories.ts'
import { deleteTag } from '#shared/db/tags.ts'
import { shardOf, type Tag } from '#shared/oci/reference.ts'
import { openTestDatabase, type TestDatabase } from '../../support/database.ts'
import { sha256 } from '../../support/image.ts'
import { manifestPush, provenance, push, repositoryName, tags } from '../../support/push.ts'

const name = repositoryName('team/app')
const common = { repository: name, shard: shardOf(name), origin: 'eu', provenance }
const [v1, v2] = tags('v1', 'v2') as [Tag, Tag]

/** Pushes `text` to the tags and returns what it overwrote there; `judged` without tags is the digest. */
async function overwrites(database: TestDatabase, text: string, pushed: Tag[], judged: Tag[] = pushed) {
  return database.db.transaction(async (transaction) => {
    await ensureRepository(transaction, { name, origin: 'eu' })
    const outcome = await pushManifestRow(transaction, manifestPush(name, text, { tags: pushed }))
    assert.equal(outcome.kind, 'pushed')
    return overwrittenByPush(transaction, { repository: name, digest: sha256(text), tags: judged })
  })
}

async function setUp(t: TestContext) {
  const database = await openTestDatabase(t)
  await push(database.db, name, 'one', { tags: [v1] })
  return database
}

const deleted = (database: TestDatabase, kind: 'manifest', text: string) =>
  database.db.transaction((transaction) =>
    deleteMembership(transaction, { ...common, kind, digest: sha256(text) }),
  )

test('a push overwrites what its tags pointed to, and nothing where they did not exist', async (t) => {
  const database = await setUp(t)
  assert.deepEqual(await overwrites(database, 'two', [v2]), [undefined])
  assert.deepEqual(await overwrites(database, 'two', [v1]), [sha256('one')])
  assert.deepEqual(await overwrites(database, 'two', [v1]), [sha256('two')], 'the same again')
  assert.deepEqual((await overwrites(database, 'three', [v1, v2])).sort(), [sha256('two'), sha256('two')])
})

test('a deleted tag, and one whose manifest or repository died, was not there to overwrite', async (t) => {
  const database = await setUp(t)
  await database.db.transaction((transaction) => deleteTag(transaction, { ...common, tag: v1 }))
  assert.deepEqual(await overwrites(database, 'one', [v1]), [undefined], 'deleted')
  await deleted(database, 'manifest', 'one')
  assert.deepEqual(await overwrites(database, 'one', [v1]), [undefined], 'by digest, and pushed again')
  await deleted(database, 'manifest', 'one')
  assert.deepEqual(await overwrites(database, 'two', [v1]), [undefined], 'by digest')
  await database.db.transaction((transaction) =>
    deleteRepository(transaction, { name, origin: 'eu', provenance }),
  )
  assert.deepEqual(await overwrites(database, 'two', [v1]), [undefined], 'with the repository')
})

test('a push without tags overwrites the digest itself where the repository held it', async (t) => {
  const database = await setUp(t)
  assert.deepEqual(await overwrites(database, 'two', []), [undefined])
  assert.deepEqual(await overwrites(database, 'two', []), [sha256('two')])
  await deleted(database, 'manifest', 'two')
  assert.deepEqual(await overwrites(database, 'two', []), [undefined])
  assert.deepEqual(await overwrites(database, 'two', [v1], []), [sha256('two')], 'tags that are not judged')
})

test('of two writes under one version, which a restored database may have given, the winner was overwritten', async (t) => {
  const database = await setUp(t)
  const alsoWritten = (digest: string, alive: boolean) =>
    database.query(
      `insert into tag_history (repository_id, name, digest, h, origin, prev_h, prev_origin, alive, actor, at)
       select repository_id, name, $1, h, origin, prev_h, prev_origin, $2, actor, at from tag`,
      [digest, alive],
    )
  await alsoWritten('sha256:0', true)
  assert.deepEqual(await overwrites(database, 'two', [v1]), [sha256('one')], 'the greater digest wins')
  await alsoWritten(sha256('two'), false)
  assert.deepEqual(await overwrites(database, 'one', [v1]), [undefined], 'the tombstone wins')
})
