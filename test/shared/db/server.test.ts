// A server is checked before it is used: a standby is refused, and a server that took over is recorded once.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { openDatabase } from '#shared/db/connect.ts'
import { withLease } from '#shared/db/lease.ts'
import { migrate } from '#shared/db/migrate.ts'
import { regionRow, sweepsPaused } from '#shared/db/region.ts'
import { createServerCheck, recordServer } from '#shared/db/server.ts'
import { one, type Queryable, statement } from '#shared/db/statement.ts'
import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { openTestDatabase } from '../../support/database.ts'
import { eventually } from '../../support/eventually.ts'
import { execute, TEST_REGION } from '../../support/postgres.ts'
import { push, repositoryName } from '../../support/push.ts'
import { testDirectory } from '../../support/region.ts'
import { copyServer, primaryAndStandby, UNSAFE_SETTINGS } from '../../support/standby.ts'

/** cannot_connect_now: callers try again. */
const refusal = { code: '57P03', message: /is a standby/ }
const asleep = statement<never>('test-asleep', 'select from pg_sleep(0.1)')

function checkedDatabase(t: TestContext, url: string, connections = 8) {
  const raised: number[] = []
  const onConnect = createServerCheck({ onRaised: (epoch) => raised.push(epoch) })
  const db = openDatabase({ url, connections, onIdleError: () => {}, onConnect })
  t.after(() => db[Symbol.asyncDispose]())
  return { db, raised }
}

async function nextId(db: Queryable): Promise<number> {
  const outcome = await push(db, repositoryName('a/b'), 'x')
  assert.ok(outcome.kind === 'pushed')
  return outcome.position.outboxId
}

test('a standby is refused, as a server that is not up yet, and used once it is promoted', async (t) => {
  const pair = await primaryAndStandby(t, (url) => migrate(url, TEST_REGION))
  const { db, raised } = checkedDatabase(t, pair.standby)
  for (const attempt of [
    () => regionRow(db),
    () => db.transaction(regionRow),
    () => migrate(pair.standby, TEST_REGION),
    () => withLease(pair.standby, 'test', async () => {}),
  ]) {
    await assert.rejects(attempt(), refusal)
  }
  await checkedDatabase(t, pair.primary).db.rows(asleep)
  await execute(pair.standby, 'select pg_promote()')
  const epoch = await eventually('the promotion', async () => {
    try {
      return (await regionRow(db)).epoch
    } catch (thrown) {
      assert.match(String(thrown), refusal.message)
      return false
    }
  })
  assert.equal(epoch, 2)
  assert.deepEqual(raised, [2])
})

test('where many connections see another server at once, the epoch is raised once', async (t) => {
  const { url, query } = await openTestDatabase(t)
  const first = await nextId(checkedDatabase(t, url).db)
  await query('update region set timeline = timeline - 1')
  const databases = Array.from({ length: 4 }, () => checkedDatabase(t, url))
  await Promise.all(databases.flatMap(({ db }) => Array.from({ length: 8 }, () => db.rows(asleep))))
  assert.deepEqual(
    databases.flatMap(({ raised }) => raised),
    [2],
  )
  const [{ db } = assert.fail()] = databases
  assert.equal((await regionRow(db)).epoch, 2)
  assert.equal(await sweepsPaused(db), true)
  const next = await nextId(db)
  assert.ok(next > first + 2 ** 32 && Number.isSafeInteger(next))
})

test('a server that only started again keeps its epoch and gives no outbox id twice', async (t) => {
  const { url, query } = await openTestDatabase(t)
  const { db } = checkedDatabase(t, url)
  const first = await nextId(db)
  const restart = async () => {
    await query(`update region set server_start = server_start - interval '1 day'`)
    const { db, raised } = checkedDatabase(t, url, 1)
    const id = await nextId(db)
    assert.deepEqual(raised, [])
    return id
  }
  const second = await restart()
  assert.ok(second > first + 2 ** 32)
  assert.ok((await restart()) > second + 2 ** 32, 'also faster than the clock')
  assert.equal((await regionRow(db)).epoch, 1)
  assert.equal(await sweepsPaused(db), false)
})

test('two servers that took over from the same data, one after the other, share no epoch and no outbox id', async (t) => {
  const { url, query } = await openTestDatabase(t)
  await nextId(checkedDatabase(t, url).db)
  const [before] = await query<{ last: string; timeline: number }>(
    `select pg_sequence_last_value('outbox_id_seq')::text as last, timeline from region`,
  )
  // The first promotion and its results are lost. The second server only knows that there was one.
  const takeOver = async (timelines: number) => {
    await query(`select setval('outbox_id_seq', $1)`, [before?.last])
    await query(
      'update region set epoch = 1, timeline = (select timeline_id from pg_control_checkpoint()) - $1',
      [timelines],
    )
    const { db } = checkedDatabase(t, url, 1)
    const id = await nextId(db)
    return { id, epoch: (await regionRow(db)).epoch }
  }
  const one = await takeOver(1)
  const other = await takeOver(2)
  assert.deepEqual([one.epoch, other.epoch], [2, 3])
  assert.ok(other.id > one.id)
})

test('an older copy of the files that is started as if it had crashed gives no outbox id twice', async (t) => {
  const [directory, copy] = [await testDirectory(t), await testDirectory(t)]
  const idsOf = async (from: string): Promise<number[]> => {
    await using server = await startEmbeddedPostgres({ directory: from, settings: UNSAFE_SETTINGS })
    await migrate(server.url, TEST_REGION)
    const onConnect = createServerCheck({ onRaised: () => assert.fail('nothing tells it from a crash') })
    await using db = openDatabase({ url: server.url, connections: 1, onIdleError: () => {}, onConnect })
    const ids: number[] = []
    for (let n = 0; n < 15; n++) ids.push(await nextId(db))
    return ids
  }
  await idsOf(directory)
  await copyServer(directory, copy)
  const lost = await idsOf(directory)
  const given = await idsOf(copy)
  assert.deepEqual(new Set(lost).intersection(new Set(given)), new Set())
})

test('a new database begins at the first id, and asking which server it is takes no transaction id', async (t) => {
  const { url } = await openTestDatabase(t)
  const { db } = checkedDatabase(t, url)
  // The push's second event.
  assert.equal(await nextId(db), 2)
  const assigned = statement<{ xid: string | null }>(
    'test-xid-after-look',
    'select pg_current_xact_id_if_assigned()::text as xid',
  )
  await db.transaction(async (transaction) => {
    assert.equal(await recordServer(transaction), undefined)
    assert.equal((await one(transaction, assigned)).xid, null)
  })
})
