import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openDatabase } from '#shared/db/connect.ts'
import { type Migration, migrate, readMigrations, SchemaTooNewError } from '#shared/db/migrate.ts'
import { regionRow } from '#shared/db/region.ts'
import { emptyDatabase } from '../../support/postgres.ts'

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
