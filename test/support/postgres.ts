// A separate database for each test, copied from the migrated template in milliseconds and dropped afterwards.
//
// The copy uses `strategy file_copy` instead of the write-ahead log. Its checkpoints are free without fsync, and it
// takes a fifth of the time.

import { randomBytes } from 'node:crypto'
import type { TestContext } from 'node:test'
import pg from 'pg'
import { migrate } from '#shared/db/migrate.ts'

export const TEST_REGION = 'eu'

/** Anything with `after` hooks: the context of a test or a suite. */
export type Cleanup = Pick<TestContext, 'after'>

const stacks = new WeakMap<Cleanup, (() => unknown)[]>()

/**
 * Registers work to run after the test, in reverse order, so that dependents end before what they depend on. Dropping
 * a database under open connections takes 100 ms, and the owners of the connections report errors.
 */
export function later(t: Cleanup, undo: () => unknown): void {
  const known = stacks.get(t)
  if (known !== undefined) {
    known.push(undo)
    return
  }
  const stack = [undo]
  stacks.set(t, stack)
  t.after(async () => {
    stacks.delete(t)
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) await next()
  })
}

/** Creates the migrated template and returns its name. */
export async function makeTemplate(url: string): Promise<string> {
  const name = `template_${randomBytes(6).toString('hex')}`
  await execute(url, `create database ${name}`)
  await migrate(withDatabase(url, name), TEST_REGION)
  return name
}

/** Returns the URL of a new, migrated database of a region. */
export async function testDatabase(t: Cleanup, region = TEST_REGION): Promise<string> {
  const { url, template } = server()
  const name = `test_${randomBytes(8).toString('hex')}`
  await execute(url, `create database ${name} template ${template} strategy file_copy`)
  later(t, () => execute(url, `drop database if exists ${name} with (force)`))
  const own = withDatabase(url, name)
  if (region !== TEST_REGION) await execute(own, `update region set name = '${region}'`)
  return own
}

/** Returns the URL of a new database without tables. */
export async function emptyDatabase(t: Cleanup): Promise<string> {
  const { url } = server()
  const name = `test_${randomBytes(8).toString('hex')}`
  await execute(url, `create database ${name} strategy file_copy`)
  later(t, () => execute(url, `drop database if exists ${name} with (force)`))
  return withDatabase(url, name)
}

function server(): { url: string; template: string } {
  const { TEST_DATABASE_URL: url, TEST_DATABASE_TEMPLATE: template } = process.env
  if (url === undefined || template === undefined) {
    throw new Error('No test database. Run tests with `npm test -- <file>`, which starts one.')
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
