import assert from 'node:assert/strict'
import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import pg from 'pg'
import { openSnapshotReader, ReaderUnavailableError, type SnapshotQuery } from '#shared/db/snapshot-reader.ts'
import { openTestDatabase } from '../../support/database.ts'
import { eventually } from '../../support/eventually.ts'
import { type Cleanup, emptyDatabase, execute } from '../../support/postgres.ts'
import { primaryAndStandby } from '../../support/standby.ts'

const KEYS = 64

const counters: SnapshotQuery<number, number> = {
  name: 'counters',
  text: `select asked.ordinal::int, counter.value
         from unnest($1::int[]) with ordinality as asked (key, ordinal)
         join counter on counter.key = asked.key`,
  id: String,
  parameters: (keys) => [keys],
  row: ([value]) => value as number,
}

const makeCounters = `create table counter (key integer primary key, value integer not null) with (fillfactor = 50);
  insert into counter select key, 0 from generate_series(1, ${KEYS}) as key`

async function counterDatabase(t: Cleanup): Promise<string> {
  const url = await emptyDatabase(t)
  await execute(url, makeCounters)
  return url
}

function openReader(t: Cleanup, url: string, unsafe?: { cacheInRecovery?: boolean }) {
  const reader = openSnapshotReader(counters, {
    url,
    entriesMax: 1_000,
    onError: () => {},
    ...(unsafe !== undefined && { unsafe }),
  })
  t.after(() => reader[Symbol.asyncDispose]())
  return reader
}

/** Starts writers; `floor` is the greatest value of each key whose commit was acknowledged. */
function startWriters(
  t: Cleanup,
  url: string,
  count: number,
): { floor: Int32Array; acknowledged: () => number; stop(): Promise<void> } {
  const floor = new Int32Array(KEYS + 1)
  let acknowledged = 0
  const writers: ChildProcess[] = Array.from({ length: count }, (_, index) => {
    const writer = fork(join(import.meta.dirname, '../../support/counter-writer.ts'), [
      url,
      String(KEYS),
      `w${index}`,
    ])
    writer.on('message', ([key, value]: [number, number]) => {
      acknowledged++
      floor[key] = Math.max(floor[key] ?? 0, value)
    })
    return writer
  })
  const stop = async () => {
    await Promise.all(
      writers.map(async (writer) => {
        if (writer.exitCode !== null) return
        const exited = new Promise((done) => writer.once('exit', done))
        if (writer.connected) writer.send('stop')
        await exited
      }),
    )
  }
  t.after(stop)
  return { floor, acknowledged: () => acknowledged, stop }
}

test('a row is read, an absent one is undefined, and both are known again without reading', async (t) => {
  const reader = openReader(t, await counterDatabase(t))
  // Snapshots are the whole cluster's: a test beside this one that writes moves them, and then nothing may be known.
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

test('what was committed before the call is in the answer, read after read', async (t) => {
  const url = await counterDatabase(t)
  const reader = openReader(t, url)
  for (let value = 1; value <= 50; value++) {
    await execute(url, `update counter set value = ${value} where key = 1`)
    assert.equal(await reader.read(1), value)
    assert.equal(await reader.read(1), value)
  }
})

test('stress: no stale read in a million beside writers with savepoints, rollbacks and two-phase commits', async (t) => {
  const url = await counterDatabase(t)
  const reader = openReader(t, url)
  const { floor, acknowledged, stop } = startWriters(t, url, 3)
  await eventually('the writers to write', () => acknowledged() > 10)
  let reads = 0
  let stale = 0
  while (reads < 1_000_000) {
    await Promise.all(
      Array.from({ length: 500 }, async () => {
        const key = 1 + Math.floor(Math.random() * KEYS)
        const least = floor[key] ?? 0
        const value = await reader.read(key)
        reads++
        if (value === undefined || value < least) stale++
      }),
    )
  }
  await stop()
  const { hits, secondReads } = reader.counts()
  t.diagnostic(
    `${reads} reads, ${hits} from memory, ${secondReads} second statements, ${acknowledged()} acknowledged writes, ${stale} stale`,
  )
  assert.equal(stale, 0)
  assert.ok(hits > 1_000, 'the cache was in use')
  assert.ok(secondReads > 100, 'snapshots moved under it')
  assert.ok(acknowledged() > 1_000, 'the writers were at work')
})

/**
 * The rule itself, on bare statements of several sessions: under equal snapshots, equal rows. Returns how often two
 * answers under one snapshot differed; stops at the first when `untilRed`.
 */
async function violations(
  t: Cleanup,
  url: string,
  options: { lock?: string; answersMax: number; untilRed: boolean },
): Promise<{ answers: number; violations: number }> {
  const text = `select pg_current_snapshot()::text as snapshot,
    (select json_agg(value order by key) from (select key, value from counter order by key ${options.lock ?? ''}) as c)::text as rows`
  const seen = new Map<string, string>()
  let answers = 0
  let found = 0
  await Promise.all(
    Array.from({ length: 4 }, async () => {
      const client = new pg.Client({ connectionString: url })
      client.on('error', () => {})
      await client.connect()
      t.after(() => client.end())
      while (answers < options.answersMax && !(options.untilRed && found > 0)) {
        const { rows } = await client.query<{ snapshot: string; rows: string }>({ name: 'rule', text })
        answers++
        const [row] = rows
        if (row === undefined) continue
        const known = seen.get(row.snapshot)
        if (known !== undefined && known !== row.rows) found++
        seen.set(row.snapshot, row.rows)
        if (seen.size > 5_000) seen.clear()
      }
    }),
  )
  return { answers, violations: found }
}

test('the rule: answers under equal snapshots are equal', async (t) => {
  const url = await counterDatabase(t)
  const { stop } = startWriters(t, url, 3)
  const result = await violations(t, url, { answersMax: 30_000, untilRed: false })
  await stop()
  t.diagnostic(`${result.answers} answers, ${result.violations} violations`)
  assert.equal(result.violations, 0)
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
