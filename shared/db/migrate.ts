// Numbered, forward-only migrations, run at start by the first process that starts.
//
// One transaction-scoped advisory lock serializes the starts of several nodes. Each migration and its row in
// schema_migration commit together. The first line of a file says whether the previous release may keep running beside
// this one: `--! compatible` or `--! breaking`. If a database is newer than this program, and a migration that this
// program does not know is breaking, the program refuses to start, with one sentence. A breaking migration is refused
// while a node of an older release lives: each node holds a shared advisory lock that names the schema it knows
// (`holdSchema`).

import { readdir, readFile } from 'node:fs/promises'
import type pg from 'pg'
import { OperatorError } from '#shared/errors.ts'
import { refuseStandby } from './server.ts'
import { endSession, limitsOf, openSession } from './session.ts'
import { maybe, type Queryable, statement } from './statement.ts'

/** An arbitrary fixed number: the advisory lock on which the starts of several nodes queue. */
const MIGRATION_LOCK = 7_065_811
/**
 * First key of the advisory locks of live nodes. The second key is the number of the last migration that the node
 * knows.
 */
const SCHEMA_LOCK = 7_065_812
/** How long a start waits for the migration of another process. */
const MIGRATION_TURN_MS = 30 * 60_000
const directory = new URL('./migrations/', import.meta.url)

export interface Migration {
  readonly number: number
  readonly name: string
  readonly breaking: boolean
  readonly sql: string
}

export class SchemaTooNewError extends OperatorError {
  override readonly name = 'SchemaTooNewError'
}

export class OlderNodesError extends OperatorError {
  override readonly name = 'OlderNodesError'
}

/** Returns the migrations of this program, in order. Throws if a file breaks the naming or lacks its first line. */
export async function readMigrations(): Promise<Migration[]> {
  const files = (await readdir(directory)).filter((file) => file.endsWith('.sql')).sort()
  return Promise.all(
    files.map(async (file, index) => {
      const sql = await readFile(new URL(file, directory), 'utf8')
      const mark = /^--! (compatible|breaking)\n/.exec(sql)?.[1]
      const number = Number(/^(\d{4})-[a-z-]+\.sql$/.exec(file)?.[1])
      if (mark === undefined || number !== index + 1) throw new Error(`migration ${file} is not well-formed`)
      return { number, name: file.slice(0, -'.sql'.length), breaking: mark === 'breaking', sql }
    }),
  )
}

/**
 * Tells processes that migrate that a node which knows the schema up to `number` lives as long as this connection.
 * @throws SchemaTooNewError if a breaking migration came first
 */
export async function holdSchema(client: pg.Client, number: number): Promise<void> {
  await client.query('select pg_advisory_lock_shared($1, $2)', [SCHEMA_LOCK, number])
  // Read after the lock: a process that migrates holds the lock alone, so its changes are visible by now.
  refuseNewer(await appliedMigrations(client), number)
}

const migrationLock = statement<never>('migration-lock', `select pg_advisory_xact_lock(${MIGRATION_LOCK})`)
const isBreaking = statement<{ breaking: boolean }>(
  'migration-is-breaking',
  `select breaking from schema_migration where number = :number`,
)
const olderNodes = statement<{ free: boolean }>(
  'older-nodes',
  `select pg_try_advisory_xact_lock(${SCHEMA_LOCK}, older) as free from generate_series(1, :number::int - 1) as older`,
)
const becomeBreaking = statement<never>(
  'migration-becomes-breaking',
  `update schema_migration set breaking = true where number = :number`,
)

/**
 * From now on, releases that do not know the migration refuse to start. Use it for data that they could not read.
 * Returns false, and changes nothing, while a node of such a release lives. Must run in a transaction.
 */
export async function retireOlderReleases(transaction: Queryable, number: number): Promise<boolean> {
  if ((await maybe(transaction, isBreaking, { number }))?.breaking === true) return true
  await transaction.rows(migrationLock)
  const locks = await transaction.rows(olderNodes, { number })
  if (locks.some(({ free }) => !free)) return false
  await transaction.rows(becomeBreaking, { number })
  return true
}

/**
 * Migrates the database at `url` to this program's schema and records the region in it. Safe to repeat.
 * @throws SchemaTooNewError if a newer release has changed the schema in a way that this release cannot work with;
 * StandbyError if the server is in recovery; Error if the database belongs to another region.
 */
export async function migrate(url: string, region: string, migrations?: readonly Migration[]): Promise<void> {
  const known = migrations ?? (await readMigrations())
  // Errors of the connection reach the statement that is running.
  const client = await openSession(url, 'migration', { onError: () => {} })
  try {
    await refuseStandby(client)
    await client.query('begin')
    // The migration of another node may take long. The wait for a table in use is short, because all other statements
    // queue behind it.
    await client.query(`set local lock_timeout = ${MIGRATION_TURN_MS}`)
    await client.query('select pg_advisory_xact_lock($1)', [MIGRATION_LOCK])
    await client.query(`set local lock_timeout = ${limitsOf('migration').lockMs}`)
    await client.query(
      `create table if not exists schema_migration (
         number integer primary key,
         name text not null,
         breaking boolean not null,
         applied_at timestamptz not null default clock_timestamp()
       )`,
    )
    const applied = await appliedMigrations(client)
    refuseNewer(applied, known.length)
    const last = applied.at(-1)?.number ?? 0
    for (const migration of known.filter(({ number }) => number > last)) {
      // A database without a schema has no nodes.
      if (migration.breaking && last > 0) await requireNoOlderNodes(client, migration)
      await client.query(migration.sql)
      await client.query('insert into schema_migration (number, name, breaking) values ($1, $2, $3)', [
        migration.number,
        migration.name,
        migration.breaking,
      ])
    }
    await recordRegion(client, region)
    await client.query('commit')
  } finally {
    endSession(client)
  }
}

interface AppliedMigration {
  readonly number: number
  readonly name: string
  readonly breaking: boolean
}

async function appliedMigrations(client: pg.Client): Promise<AppliedMigration[]> {
  const { rows } = await client.query<AppliedMigration>(
    'select number, name, breaking from schema_migration order by number',
  )
  return rows
}

function refuseNewer(applied: readonly AppliedMigration[], known: number): void {
  const breaking = applied.find((row) => row.number > known && row.breaking)
  if (breaking === undefined) return
  throw new SchemaTooNewError(
    `The database was changed by a newer Portolan (${breaking.name}) that this release cannot work with: start that release, or restore a backup from before it.`,
  )
}

/** Takes the older schemas' locks exclusively until the migration has committed. */
async function requireNoOlderNodes(client: pg.Client, migration: Migration): Promise<void> {
  for (let older = 1; older < migration.number; older++) {
    const { rows } = await client.query<{ free: boolean }>(
      'select pg_try_advisory_xact_lock($1, $2) as free',
      [SCHEMA_LOCK, older],
    )
    if (rows[0]?.free === true) continue
    throw new OlderNodesError(
      `The change of the database that this release makes (${migration.name}) would break nodes of an older release that are still running: stop every older node of this region, then start again.`,
    )
  }
}

/** A database belongs to one region permanently: the region's name is part of every version written. */
async function recordRegion(client: pg.Client, region: string): Promise<void> {
  await client.query(
    `insert into region (name, system_identifier)
     select $1, system_identifier::text from pg_control_system()
     on conflict do nothing`,
    [region],
  )
  const { rows } = await client.query<{ name: string }>('select name from region')
  const recorded = rows[0]?.name
  if (recorded !== region) {
    throw new OperatorError(
      `The database belongs to the region "${recorded}", not "${region}": set PORTOLAN_REGION=${recorded} or give this region a database of its own.`,
    )
  }
}
