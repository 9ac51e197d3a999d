// What the log retains, and for which readers.
// tests: shared/db/own-readers.ts, shared/db/peer-readers.ts, shared/db/shard-log.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { logBounds, trimEvents } from '#shared/db/event-log.ts'
import { moveOwnReader } from '#shared/db/own-readers.ts'
import { notePeerReader } from '#shared/db/peer-readers.ts'
import { shardStates } from '#shared/db/shard-log.ts'
import { type Queryable, statement } from '#shared/db/statement.ts'
import { SHARDS } from '#shared/events/event-id.ts'
import { fillLog } from '../../support/log-writer.ts'
import { testRegion } from '../../support/region.ts'

const trim = (db: Queryable, limit = 1_000) =>
  trimEvents(db, { retentionSeconds: 0, readerSeconds: 60, limit })
const places = (seq: number) => Array.from({ length: SHARDS }, (_, shard) => ({ shard, epoch: 1, seq }))

test('events are kept for the slowest reader: the publisher, the planner, another region', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  await fillLog(region, { count: 160 })
  await moveOwnReader(db, 'webhooks', { epoch: 1, pos: 120 })
  await moveOwnReader(db, 'kafka', { epoch: 1, pos: 40 })
  assert.equal(await trim(db), 40)
  await moveOwnReader(db, 'kafka', { epoch: 1, pos: 160 })
  await notePeerReader(db, 'peer:us', places(10))
  assert.equal(await trim(db), 40, 'the reader has passed ten events of each of the eight shards')
  // A shard that lags keeps all later events, so that the remaining log has no gaps.
  await notePeerReader(db, 'peer:us', [...places(20).slice(1), { shard: 0, epoch: 1, seq: 12 }])
  await trim(db)
  const { oldest, head } = (await logBounds(db)) ?? assert.fail()
  assert.equal(head.pos, 160)
  assert.ok(oldest.pos > 80 && oldest.pos < 160, `${oldest.pos}`)
  const states = await shardStates(db, places(12))
  assert.equal(states.find(({ shard }) => shard === 0)?.missed, false)
})

test('a cursor never moves backwards', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  await fillLog(region, { count: 16 })
  await moveOwnReader(db, 'kafka', { epoch: 1, pos: 10 })
  await moveOwnReader(db, 'kafka', { epoch: 1, pos: 5 })
  assert.equal(await trim(db), 10)
})

test('events are not kept for a reader that has been silent for too long', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  await fillLog(region, { count: 80 })
  await moveOwnReader(db, 'kafka', { epoch: 1, pos: 3 })
  await notePeerReader(db, 'peer:us', places(1))
  assert.equal(await trim(db), 3)
  await db.rows(
    statement('test-age-cursor', `update event_cursor set moved_at = now() - interval '2 minutes'`),
  )
  assert.equal(await trim(db), 5)
  await db.rows(statement('test-age-reader', `update log_reader set seen_at = now() - interval '2 minutes'`))
  assert.equal(await trim(db), 72)
})

test('trimming is bounded', async (t) => {
  const { region } = await testRegion(t)
  await fillLog(region, { count: 80 })
  assert.equal(await trim(region.db, 30), 30)
  assert.equal(await trim(region.db, 30), 30)
  assert.equal(await trim(region.db, 30), 20)
  assert.equal(await trim(region.db, 30), 0)
})

test('a reader that has a whole epoch misses nothing when only the next epoch remains', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  await fillLog(region, { count: 16 })
  assert.equal(await trim(db), 16)
  await db.rows(statement('test-raise', 'update region set epoch = 2'))
  await fillLog(region, { count: 8 })
  const [whole] = await shardStates(db, [{ shard: 0, epoch: 1, seq: 2 }])
  assert.deepEqual([whole?.missed, whole?.behind], [false, 1])
  const [late] = await shardStates(db, [{ shard: 0, epoch: 1, seq: 1 }])
  assert.deepEqual([late?.missed, late?.behind], [true, 2])
})
