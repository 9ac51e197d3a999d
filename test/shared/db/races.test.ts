// Races, step by step: a session holds a lock and another is seen to wait for it. What both do next is in the one order
// that the locks allow.
// tests: shared/db/memberships.ts, shared/db/push-manifest.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deleteMembership } from '#shared/db/memberships.ts'
import { deleteRepository } from '#shared/db/repositories.ts'
import { tagRegister } from '#shared/db/tags.ts'
import { shardOf } from '#shared/oci/reference.ts'
import { openTestDatabase, someoneWaits } from '../../support/database.ts'
import { eventually } from '../../support/eventually.ts'
import { sha256 } from '../../support/image.ts'
import { linkBlob, provenance, push, repositoryName, tags } from '../../support/push.ts'

const name = repositoryName('team/app')
const common = { repository: name, shard: shardOf(name), origin: 'eu', provenance }
const [v1] = tags('v1')
assert.ok(v1)

test('lock order, first race: a push that waits for the tag draws its numbers after the one it waited for', async (t) => {
  const database = await openTestDatabase(t)
  const { db, query } = database
  await push(db, name, 'first', { tags: tags('v1') })
  await push(db, name, 'second')
  // A holder takes the tag's row; a second push waits; the holder pushes again and commits.
  let waiting: Promise<unknown> | undefined
  await db.transaction(async (holder) => {
    await push(holder, name, 'held once', { tags: tags('v1') })
    waiting = push(db, name, 'second', { tags: tags('v1') })
    await eventually('the second push to wait', () => someoneWaits(database))
    await push(holder, name, 'held twice', { tags: tags('v1') })
  })
  await waiting
  const events = await query<{ digest: string; h: string }>(
    `select payload ->> 'digest' as digest, payload #>> '{version,h}' as h from outbox
     where type like '%tag.set%' order by id`,
  )
  assert.deepEqual(
    events.map(({ digest }) => digest),
    [sha256('first'), sha256('held once'), sha256('held twice'), sha256('second')],
  )
  const versions = events.map(({ h }) => BigInt(h))
  assert.deepEqual(
    versions,
    [...versions].sort((a, b) => (a < b ? -1 : 1)),
    'outbox order is version order',
  )
  assert.equal((await tagRegister(db, { repository: name, tag: v1 }))?.digest, sha256('second'))
  const [last] = await query<{ prev: string }>(`select prev_h as prev from tag`)
  assert.equal(
    last?.prev,
    String(versions[2]),
    'prev is the version that was overwritten, not the one first seen',
  )
})

test('lock order, second race: pushes of several tags in opposite orders neither deadlock nor interleave', async (t) => {
  const { db, query } = await openTestDatabase(t)
  const names = Array.from({ length: 20 }, (_, index) => `t${String(index).padStart(2, '0')}`)
  await Promise.all(
    Array.from({ length: 16 }, (_, round) =>
      push(db, name, `round ${round}`, { tags: tags(...(round % 2 === 0 ? names : [...names].reverse())) }),
    ),
  )
  const digests = await query('select distinct digest from tag')
  assert.equal(digests.length, 1, 'one push won all of its tags')
  const order = await query<{ sorted: boolean }>(
    `select bool_and(h > prev) as sorted from (
       select (payload #>> '{version,h}')::bigint as h,
         coalesce(lag((payload #>> '{version,h}')::bigint) over (partition by payload ->> 'tag' order by id), 0) as prev
       from outbox where type like '%tag.set%') as events`,
  )
  assert.deepEqual(order, [{ sorted: true }])
})

test('a delete by digest that waits for a push sees its tag, and takes it along', async (t) => {
  const database = await openTestDatabase(t)
  const { db, query } = database
  await push(db, name, 'one')
  let deleting: Promise<unknown> | undefined
  await db.transaction(async (pusher) => {
    await push(pusher, name, 'one', { tags: tags('late') })
    deleting = db.transaction((transaction) =>
      deleteMembership(transaction, { ...common, kind: 'manifest', digest: sha256('one') }),
    )
    await eventually('the delete to wait', () => someoneWaits(database))
  })
  await deleting
  const [row] = await query<{ taken: boolean }>(
    'select m.dead_h > t.h as taken from membership m join tag t on t.digest = m.digest',
  )
  assert.equal(row?.taken, true)
})

test('a push that waits for a delete by digest revives it with a greater version', async (t) => {
  const database = await openTestDatabase(t)
  const { db, query } = database
  await push(db, name, 'one', { tags: tags('v1') })
  let pushing: Promise<unknown> | undefined
  await db.transaction(async (deleter) => {
    await deleteMembership(deleter, { ...common, kind: 'manifest', digest: sha256('one') })
    pushing = push(db, name, 'one', { tags: tags('v1') })
    await eventually('the push to wait', () => someoneWaits(database))
  })
  await pushing
  const [row] = await query<{ alive: boolean }>(
    'select m.alive_h > m.dead_h and t.h > m.dead_h as alive from membership m join tag t on t.digest = m.digest',
  )
  assert.equal(row?.alive, true)
})

test('a blob is either deleted before a manifest names it, or kept because one does', async (t) => {
  const database = await openTestDatabase(t)
  const { db } = database
  const digest = await linkBlob(db, name, 'layer')
  const references = [
    { kind: 'layer' as const, target: 'blob' as const, position: 0, digest, mandatory: true, required: true },
  ]
  const deleteBlob = (on: Parameters<typeof deleteMembership>[0]) =>
    deleteMembership(on, { ...common, kind: 'blob', digest })

  // The push first: the delete waits, then finds the manifest.
  let deleting: Promise<unknown> | undefined
  await db.transaction(async (pusher) => {
    await push(pusher, name, 'image', { references })
    deleting = db.transaction(deleteBlob)
    await eventually('the delete to wait', () => someoneWaits(database))
  })
  assert.deepEqual(await deleting, { kind: 'referenced', by: [sha256('image')] })

  // The delete first: the push waits, then misses the blob.
  await db.transaction((transaction) =>
    deleteMembership(transaction, { ...common, kind: 'manifest', digest: sha256('image') }),
  )
  let pushing: Promise<unknown> | undefined
  await db.transaction(async (deleter) => {
    assert.equal((await deleteBlob(deleter)).kind, 'deleted')
    pushing = push(db, name, 'image', { references })
    await eventually('the push to wait', () => someoneWaits(database))
  })
  assert.deepEqual(await pushing, { kind: 'references-missing', digests: [digest] })
})

test('a repository that dies while a push waits is made anew by the push that comes after', async (t) => {
  const database = await openTestDatabase(t)
  const { db, query } = database
  await push(db, name, 'one', { tags: tags('v1') })
  let pushing: ReturnType<typeof push> | undefined
  await db.transaction(async (deleter) => {
    await deleteRepository(deleter, { name, origin: 'eu', provenance })
    pushing = push(db, name, 'two', { tags: tags('v2') })
    await eventually('the push to wait', () => someoneWaits(database))
  })
  assert.equal((await pushing)?.kind, 'pushed')
  const [row] = await query<{ alive: boolean }>(
    'select t.h > r.dead_h as alive from tag t join repository r on r.id = t.repository_id where t.name = $1',
    ['v2'],
  )
  assert.equal(row?.alive, true)
})

test('deletes and pushes of one digest, all at once, end in one of the two states and in order', async (t) => {
  const { db, query } = await openTestDatabase(t)
  await push(db, name, 'one', { tags: tags('v1') })
  await Promise.all(
    Array.from({ length: 60 }, (_, index) =>
      index % 3 === 0
        ? db.transaction((transaction) =>
            deleteMembership(transaction, { ...common, kind: 'manifest', digest: sha256('one') }),
          )
        : push(db, name, 'one', { tags: tags('v1') }),
    ),
  )
  const [row] = await query<{ sorted: boolean; events: string }>(
    `select bool_and(h > prev) as sorted, count(*) as events from (
       select (payload #>> '{version,h}')::bigint as h,
         coalesce(lag((payload #>> '{version,h}')::bigint) over (order by id), 0) as prev
       from outbox where type like '%manifest.%') as events`,
  )
  assert.equal(row?.sorted, true, 'each write of the membership has a greater version than the one before')
  assert.ok(Number(row.events) > 40)
})
