// An open database for tests, and direct access to it with plain SQL.

import assert from 'node:assert/strict'
import pg from 'pg'
import { type Database, openDatabase } from '#shared/db/connect.ts'
import { type Cleanup, later, testDatabase } from './postgres.ts'

export interface TestDatabase {
  readonly url: string
  readonly db: Database
  /** Runs any SQL on a separate connection and returns the rows. */
  query<Row extends pg.QueryResultRow>(sql: string, values?: unknown[]): Promise<Row[]>
  /** Opens a separate connection, closed after the test. */
  session(): Promise<pg.Client>
}

export async function openTestDatabase(t: Cleanup): Promise<TestDatabase> {
  const url = await testDatabase(t)
  const db = openDatabase({ url, connections: 8, onIdleError: () => {} })
  const sessions: pg.Client[] = []
  later(t, async () => {
    for (const session of sessions) await session.end()
    await db[Symbol.asyncDispose]()
  })
  const session = async () => {
    const client = await connected(url)
    sessions.push(client)
    return client
  }
  const main = await session()
  return { url, db, session, query: async (sql, values) => (await main.query(sql, values)).rows }
}

/** Opens a connection to a database that the test did not create. Closed after the test. */
export async function databaseSession(t: Cleanup, url: string): Promise<pg.Client> {
  const client = await connected(url)
  later(t, () => client.end())
  return client
}

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  return client
}

/** Returns true if any session of the database is waiting for a lock. */
export async function someoneWaits(database: TestDatabase, count = 1): Promise<boolean> {
  const [row] = await database.query<{ waiting: string }>(
    `select count(*) as waiting from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'`,
  )
  assert.ok(row)
  return Number(row.waiting) >= count
}
