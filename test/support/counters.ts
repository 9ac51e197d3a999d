// A table of counters, writer processes that increment them, and readers that must never see an old value.

import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import pg from 'pg'
import { openSnapshotReader, type SnapshotQuery } from '#shared/db/snapshot-reader.ts'
import { type Cleanup, emptyDatabase, execute, later } from './postgres.ts'

export const KEYS = 64

export const counters: SnapshotQuery<number, number> = {
  name: 'counters',
  text: `select asked.ordinal::int, counter.value
         from unnest($1::int[]) with ordinality as asked (key, ordinal)
         join counter on counter.key = asked.key`,
  id: String,
  parameters: (keys) => [keys],
  row: ([value]) => value as number,
}

export const makeCounters = `create table counter (key integer primary key, value integer not null) with (fillfactor = 50);
  insert into counter select key, 0 from generate_series(1, ${KEYS}) as key`

export async function counterDatabase(t: Cleanup): Promise<string> {
  const url = await emptyDatabase(t)
  await execute(url, makeCounters)
  return url
}

export function openReader(t: Cleanup, url: string, unsafe?: { cacheInRecovery?: boolean }) {
  const reader = openSnapshotReader(counters, {
    url,
    entriesMax: 1_000,
    onError: () => {},
    ...(unsafe !== undefined && { unsafe }),
  })
  later(t, () => reader[Symbol.asyncDispose]())
  return reader
}

/** Starts writers. `floor` holds the largest value of each key whose commit was acknowledged. */
export function startWriters(
  t: Cleanup,
  url: string,
  count: number,
): { floor: Int32Array; acknowledged: () => number; stop(): Promise<void> } {
  const floor = new Int32Array(KEYS + 1)
  let acknowledged = 0
  const writers: ChildProcess[] = Array.from({ length: count }, (_, index) => {
    const writer = fork(join(import.meta.dirname, 'counter-writer.ts'), [url, String(KEYS), `w${index}`])
    writer.on('message', ([key, value]: [number, number]) => {
      acknowledged++
      floor[key] = Math.max(floor[key] ?? 0, value)
    })
    return writer
  })
  const stop = async () => {
    await Promise.all(
      writers.map(async (writer) => {
        if (writer.exitCode !== null || writer.signalCode !== null) return
        const exited = new Promise((done) => writer.once('exit', done))
        if (writer.connected) writer.send('stop')
        await exited
      }),
    )
  }
  later(t, stop)
  return { floor, acknowledged: () => acknowledged, stop }
}

/**
 * Checks the rule with plain statements in several sessions: equal snapshots return equal rows. Returns how often two
 * results under one snapshot differed. With `untilRed`, stops at the first difference.
 */
export async function violations(
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
      later(t, () => client.end())
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
