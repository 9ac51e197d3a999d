// A database of its own for each test, copied from the migrated template in milliseconds and dropped afterwards.

import { randomBytes } from 'node:crypto'
import type { TestContext } from 'node:test'
import pg from 'pg'
import { migrate } from '#shared/db/migrate.ts'

export const TEST_REGION = 'eu'

/** Anything with hooks that run after it: a test or a suite's context. */
export type Cleanup = Pick<TestContext, 'after'>

/** Makes the migrated template and returns its name. */
export async function makeTemplate(url: string): Promise<string> {
  const name = `template_${randomBytes(6).toString('hex')}`
  await execute(url, `create database ${name}`)
  await migrate(withDatabase(url, name), TEST_REGION)
  return name
}

/** The URL of a fresh, migrated database. */
export async function testDatabase(t: Cleanup): Promise<string> {
  const { url, template } = server()
  const name = `test_${randomBytes(8).toString('hex')}`
  await execute(url, `create database ${name} template ${template}`)
  t.after(() => execute(url, `drop database if exists ${name} with (force)`))
  return withDatabase(url, name)
}

/** The URL of a fresh database without any tables. */
export async function emptyDatabase(t: Cleanup): Promise<string> {
  const { url } = server()
  const name = `test_${randomBytes(8).toString('hex')}`
  await execute(url, `create database ${name}`)
  t.after(() => execute(url, `drop database if exists ${name} with (force)`))
  return withDatabase(url, name)
}

function server(): { url: string; template: string } {
  const { TEST_DATABASE_URL: url, TEST_DATABASE_TEMPLATE: template } = process.env
  if (url === undefined || template === undefined) {
    throw new Error('No test database: run tests with `npm test -- <file>`, which starts one.')
  }
  return { url, template }
}

function withDatabase(url: string, name: string): string {
  return url.replace(/\/[^/?]*(\?|$)/, `/${name}$1`)
}

export async function execute(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}
