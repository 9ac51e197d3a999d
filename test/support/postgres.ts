// A database of its own for each test, copied from the migrated template in milliseconds and dropped afterwards.
//
// The copy is of files (`strategy file_copy`), not by way of the write-ahead log: without fsync its checkpoints cost
// nothing, and it takes a fifth of the time.

import { randomBytes } from 'node:crypto'
import type { TestContext } from 'node:test'
import pg from 'pg'
import { migrate } from '#shared/db/migrate.ts'

export const TEST_REGION = 'eu'

/** Anything with hooks that run after it: a test or a suite's context. */
export type Cleanup = Pick<TestContext, 'after'>

const stacks = new WeakMap<Cleanup, (() => unknown)[]>()

/**
 * Runs after the test, the last first: what stands on something ends before it. A database that is dropped under open
 * connections costs a tenth of a second, and everything that watches them complains.
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

/** Makes the migrated template and returns its name. */
export async function makeTemplate(url: string): Promise<string> {
  const name = `template_${randomBytes(6).toString('hex')}`
  await execute(url, `create database ${name}`)
  await migrate(withDatabase(url, name), TEST_REGION)
  return name
}

/** The URL of a fresh, migrated database of a region. */
export async function testDatabase(t: Cleanup, region = TEST_REGION): Promise<string> {
  const { url, template } = server()
  const name = `test_${randomBytes(8).toString('hex')}`
  await execute(url, `create database ${name} template ${template} strategy file_copy`)
  later(t, () => execute(url, `drop database if exists ${name} with (force)`))
  const own = withDatabase(url, name)
  if (region !== TEST_REGION) await execute(own, `update region set name = '${region}'`)
  return own
}

/** The URL of a fresh database without any tables. */
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
