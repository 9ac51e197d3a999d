import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openSnapshotReader, ReaderUnavailableError } from '#shared/db/snapshot-reader.ts'
import {
  counterDatabase,
  counters,
  KEYS,
  makeCounters,
  openReader,
  startWriters,
  violations,
} from '../../support/counters.ts'
import { openTestDatabase } from '../../support/database.ts'
import { eventually } from '../../support/eventually.ts'
import { execute } from '../../support/postgres.ts'
import { primaryAndStandby } from '../../support/standby.ts'

test('a row is read, an absent one is undefined, and both are known again without reading', async (t) => {
  const reader = openReader(t, await counterDatabase(t))
  // Snapshots cover the whole cluster. A concurrent test that writes moves them, and then nothing may be known.
  await eventually('two reads under one snapshot', async () => {
    assert.equal(await reader.read(1), 0)
    assert.equal(await reader.read(999), undefined)
    const before = reader.counts()
    assert.equal(await reader.read(1), 0)
    assert.equal(await reader.read(999), undefined)
    return reader.counts().hits - before.hits === 2
  })
})

test('requests of one turn share one statement', async (t) => {
  const reader = openReader(t, await counterDatabase(t))
  await reader.read(1)
  const before = reader.counts().statements
  assert.deepEqual(await Promise.all([1, 2, 3, 4].map((key) => reader.read(key))), [0, 0, 0, 0])
  assert.ok(reader.counts().statements - before <= 2)
})

test('a key that many ask for in one turn is read once, and all have its row', async (t) => {
  const url = await counterDatabase(t)
  const asked: (readonly number[])[] = []
  const counted = {
    ...counters,
    parameters: (keys: readonly number[]) => {
      asked.push(keys)
      return [keys]
    },
  }
  const reader = openSnapshotReader(counted, { url, entriesMax: 10, onError: () => {} })
  t.after(() => reader[Symbol.asyncDispose]())
  const rows = await Promise.all([3, 4, 3, 3, 999, 999].map((key) => reader.read(key)))
  assert.deepEqual(asked, [[3, 4, 999]])
  assert.deepEqual(rows, [0, 0, 0, 0, undefined, undefined])
})

test('where rows tell their bytes, those kept are bounded by bytes', async (t) => {
  const url = await counterDatabase(t)
  const sized = { ...counters, bytes: () => 100_000 }
  const reader = openSnapshotReader(sized, { url, entriesMax: 1_000, bytesMax: 350_000, onError: () => {} })
  t.after(() => reader[Symbol.asyncDispose]())
  for (const key of [1, 2, 3, 4]) await reader.read(key)
  for (const key of [4, 3, 2]) await reader.read(key)
  assert.equal(reader.counts().hits, 3)
  await reader.read(1)
  assert.equal(reader.counts().hits, 3)
})

test('a statement that fails is told to those whose it was, not to those in line behind it', async (t) => {
  const url = await counterDatabase(t)
  const short = {
    ...counters,
    text: counters.text.replace('counter.value', '1 / counter.value'),
    batchMax: 1,
  }
  await execute(url, 'update counter set value = 1 where key = 2')
  const reader = openSnapshotReader(short, { url, entriesMax: 10, onError: () => {} })
  t.after(() => reader[Symbol.asyncDispose]())
  const [bad, good] = await Promise.allSettled([reader.read(1), reader.read(2)])
  assert.equal(bad.status, 'rejected')
  assert.deepEqual(good, { status: 'fulfilled', value: 1 })
})

test('what was committed before the call is in the answer, read after read', async (t) => {
  const url = await counterDatabase(t)
  const reader = openReader(t, url)
  for (let value = 1; value <= 50; value++) {
    await execute(url, `update counter set value = ${value} where key = 1`)
    assert.equal(await reader.read(1), value)
    assert.equal(await reader.read(1), value)
  }
})

test('no read is stale beside writers with savepoints, rollbacks and two-phase commits', async (t) => {
  const url = await counterDatabase(t)
  const reader = openReader(t, url)
  const { floor, acknowledged, stop } = startWriters(t, url, 3)
  await eventually('the writers to write', () => acknowledged() > 10)
  let stale = 0
  // test/faults/db makes a million reads.
  for (let round = 0; round < 60; round++) {
    await Promise.all(
      Array.from({ length: 500 }, async (_, index) => {
        const key = 1 + (index % KEYS)
        const least = floor[key] ?? 0
        const value = await reader.read(key)
        if (value === undefined || value < least) stale++
      }),
    )
  }
  await stop()
  assert.equal(stale, 0)
})

test('the rule fails for FOR SHARE: the check sees it', async (t) => {
  const url = await counterDatabase(t)
  const { stop } = startWriters(t, url, 3)
  const result = await violations(t, url, { lock: 'for share', answersMax: 60_000, untilRed: true })
  await stop()
  t.diagnostic(`${result.answers} answers until ${result.violations} violations`)
  assert.ok(result.violations > 0)
})

test('the rule fails on a hot standby: the check sees it, and there the reader keeps nothing', async (t) => {
  const { primary, standby } = await primaryAndStandby(t, (url) => execute(url, makeCounters))
  const { stop } = startWriters(t, primary, 3)
  const result = await violations(t, standby, { answersMax: 60_000, untilRed: true })
  t.diagnostic(`${result.answers} answers until ${result.violations} violations`)
  assert.ok(result.violations > 0)

  const safe = openReader(t, standby)
  for (let read = 0; read < 100; read++) await safe.read(1)
  assert.equal(safe.counts().hits, 0, 'in recovery every read is a read')
  await stop()
  const unsafe = openReader(t, standby, { cacheInRecovery: true })
  for (let read = 0; read < 100; read++) await unsafe.read(1)
  assert.ok(unsafe.counts().hits > 0, 'the seam turns the guard off, so the guard is what keeps hits at 0')
})

test('a lost connection is made anew: waiting reads are answered, and nothing cached is trusted', async (t) => {
  const database = await openTestDatabase(t)
  await database.query(makeCounters.split(';')[0] ?? '')
  await database.query(makeCounters.split(';')[1] ?? '')
  const reader = openReader(t, database.url)
  assert.equal(await reader.read(1), 0)
  for (let round = 1; round <= 5; round++) {
    await database.query('update counter set value = value + 1 where key = 1')
    const reads = Promise.all(Array.from({ length: 20 }, () => reader.read(1)))
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and application_name = 'portolan' and pid <> pg_backend_pid()`,
    )
    for (const value of await reads) assert.equal(value, round)
  }
})

test('a database that stays away is an error in bounded time, and one that is closed refuses', async () => {
  const reader = openSnapshotReader(counters, {
    url: 'postgres://portolan@127.0.0.1:1/none',
    entriesMax: 10,
    holdMs: 200,
    onError: () => {},
  })
  await assert.rejects(reader.read(1), ReaderUnavailableError)
  await reader[Symbol.asyncDispose]()
  await assert.rejects(reader.read(1), ReaderUnavailableError)
})

test("an error that is not the connection's is told to those who asked, and the next read works", async (t) => {
  const url = await counterDatabase(t)
  const reader = openSnapshotReader(
    { ...counters, parameters: (keys: readonly number[]) => [keys.map((key) => (key < 0 ? 'x' : key))] },
    { url, entriesMax: 10, onError: () => {} },
  )
  t.after(() => reader[Symbol.asyncDispose]())
  await assert.rejects(reader.read(-1))
  assert.equal(await reader.read(1), 0)
})
