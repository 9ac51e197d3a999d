// tests: shared/db/region.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import pg from 'pg'
import { openDatabase } from '#shared/db/connect.ts'
import {
  holdSchema,
  type Migration,
  migrate,
  OlderNodesError,
  readMigrations,
  SchemaTooNewError,
} from '#shared/db/migrate.ts'
import { regionRow } from '#shared/db/region.ts'
import { connectionOptions } from '#shared/db/session.ts'
import { eventually } from '../../support/eventually.ts'
import { emptyDatabase } from '../../support/postgres.ts'
import { testRegion } from '../../support/region.ts'

async function connectedTo(url: string) {
  const client = new pg.Client(connectionOptions(url))
  await client.connect()
  return { client, [Symbol.asyncDispose]: () => client.end() }
}

test('several nodes that start at once migrate once, and again does nothing', async (t) => {
  const url = await emptyDatabase(t)
  await Promise.all(Array.from({ length: 6 }, () => migrate(url, 'eu')))
  await migrate(url, 'eu')
  const db = openDatabase({ url, connections: 1, onIdleError: () => {} })
  t.after(() => db[Symbol.asyncDispose]())
  assert.deepEqual(await regionRow(db), { name: 'eu', epoch: 1 })
})

test('a database belongs to one region for ever', async (t) => {
  const url = await emptyDatabase(t)
  await migrate(url, 'eu')
  await assert.rejects(migrate(url, 'us'), /belongs to the region "eu".*PORTOLAN_REGION=eu/s)
})

test("a newer release's compatible change is lived with, a breaking one refused in one sentence", async (t) => {
  const url = await emptyDatabase(t)
  const known = await readMigrations()
  const next = (number: number, breaking: boolean): Migration => ({
    number,
    name: `000${number}-later`,
    breaking,
    sql: 'select 1',
  })
  await migrate(url, 'eu', [...known, next(known.length + 1, false)])
  await migrate(url, 'eu', known)
  await migrate(url, 'eu', [...known, next(known.length + 1, false), next(known.length + 2, true)])
  await assert.rejects(migrate(url, 'eu', known), SchemaTooNewError)
})

test('a breaking change is refused while an older node lives, and done when the last one has ended', async (t) => {
  const url = await emptyDatabase(t)
  const known = await readMigrations()
  const later = (breaking: boolean): Migration[] => [
    ...known,
    { number: known.length + 1, name: '0002-later', breaking, sql: 'select 1' },
  ]
  await migrate(url, 'eu')
  const node = await connectedTo(url)
  await holdSchema(node.client, known.length)
  await assert.rejects(migrate(url, 'eu', later(true)), OlderNodesError)
  await assert.rejects(migrate(url, 'eu', later(true)), /stop .*older/i)
  await migrate(url, 'eu')
  await node[Symbol.asyncDispose]()
  await eventually('the lock of the ended node to go', () =>
    migrate(url, 'eu', later(true)).then(
      () => true,
      () => false,
    ),
  )
})

test('an additive change goes ahead beside older nodes', async (t) => {
  const url = await emptyDatabase(t)
  const known = await readMigrations()
  await migrate(url, 'eu')
  await using node = await connectedTo(url)
  await holdSchema(node.client, known.length)
  const later = { number: known.length + 1, name: '0002-later', breaking: false, sql: 'select 1' }
  await migrate(url, 'eu', [...known, later])
})

test('a node that was cut off while a breaking change was made does not come back', async (t) => {
  const url = await emptyDatabase(t)
  const known = await readMigrations()
  await migrate(url, 'eu', [
    ...known,
    { number: known.length + 1, name: '0002-later', breaking: true, sql: 'select 1' },
  ])
  await using node = await connectedTo(url)
  await assert.rejects(holdSchema(node.client, known.length), SchemaTooNewError)
})

test('a region that is open keeps breaking changes away', async (t) => {
  const { region } = await testRegion(t)
  const known = await readMigrations()
  const later = { number: known.length + 1, name: '0002-later', breaking: true, sql: 'select 1' }
  await assert.rejects(migrate(region.databaseUrl, region.name, [...known, later]), OlderNodesError)
})

test('a migration that fails leaves nothing of itself', async (t) => {
  const url = await emptyDatabase(t)
  const known = await readMigrations()
  const broken: Migration = {
    number: known.length + 1,
    name: 'broken',
    breaking: false,
    sql: 'create table half (a int); select 1 / 0',
  }
  await assert.rejects(migrate(url, 'eu', [...known, broken]), /division by zero/)
  await migrate(url, 'eu', [...known, { ...broken, sql: 'create table half (a int)' }])
})
