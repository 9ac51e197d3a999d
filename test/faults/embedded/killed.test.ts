// Kills the embedded Postgres, its owner, or both, at any point.

import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { glob, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import pg from 'pg'
import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { eventually } from '../../support/eventually.ts'
import { isAlive, OWNER, spawnOwner } from '../../support/owned-postgres.ts'
import { execute } from '../../support/postgres.ts'
import { testDirectory } from '../../support/region.ts'

const UNFINISHED = 'data.unfinished-*'

async function look(url: string, sql: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return await client.query(sql)
  } finally {
    await client.end()
  }
}

test('kill -9 of the owner ends Postgres too, and the next start recovers committed data', async (t) => {
  const directory = await testDirectory(t)
  const first = await spawnOwner(t, directory)
  await execute(first.url, 'create table kept (a int)')
  first.child.kill('SIGKILL')
  await eventually('Postgres to end with its owner', () => !isAlive(first.pid))
  await using again = await startEmbeddedPostgres({ directory })
  await execute(again.url, 'select * from kept')
})

test('a start right after kill -9 of all processes waits for busy backends, in three of three rounds', async (t) => {
  const directory = await testDirectory(t)
  for (let round = 0; round < 3; round++) {
    const owner = await spawnOwner(t, directory)
    const client = new pg.Client({ connectionString: owner.url })
    client.on('error', () => {})
    await client.connect()
    // A busy backend does not notice that its postmaster is gone.
    await client.query(`set statement_timeout = '3s'`)
    const busy = client.query('select count(*) from generate_series(1, 2000000000) as n where n % 7 = 0')
    busy.catch(() => {})
    await eventually('the backend to be busy', async () => {
      const { rows } = await look(
        owner.url,
        `select from pg_stat_activity where query like '%generate_series%' and state = 'active' and pid <> pg_backend_pid()`,
      )
      return rows.length === 1
    })
    process.kill(owner.pid, 'SIGKILL')
    owner.child.kill('SIGKILL')
    await using again = await startEmbeddedPostgres({ directory })
    await execute(again.url, 'select 1')
  }
})

test('kill -9 of Postgres restarts it every time and reports the restart', async (t) => {
  const directory = await testDirectory(t)
  const restarts: string[] = []
  await using postgres = await startEmbeddedPostgres({
    directory,
    onRestart: (reason) => restarts.push(reason),
  })
  await execute(postgres.url, 'create table kept (a int)')
  for (let round = 1; round <= 3; round++) {
    const pid = postgres.pid()
    assert.ok(pid)
    process.kill(pid, 'SIGKILL')
    await eventually('another Postgres', () => postgres.pid() !== pid && postgres.pid() !== undefined)
    await eventually('Postgres to answer', () =>
      execute(postgres.url, 'select * from kept').then(
        () => true,
        () => false,
      ),
    )
    assert.equal(restarts.length, round)
  }
})

test('the next start recovers a first start that was killed at any point', async (t) => {
  const reached = [
    (directory: string) => join(directory, 'password'),
    (directory: string) => join(directory, UNFINISHED, 'data', 'PG_VERSION'),
    (directory: string) => join(directory, UNFINISHED, 'data', 'global', 'pg_control'),
    (directory: string) => join(directory, UNFINISHED, 'data', 'base', '4'),
    (directory: string) => join(directory, 'data', 'PG_VERSION'),
  ]
  for (const path of reached) {
    const directory = await testDirectory(t)
    const child = fork(OWNER, [directory], { silent: true, env: { PATH: process.env.PATH, TMPDIR: '/tmp' } })
    t.after(() => child.kill('SIGKILL'))
    await eventually(path(directory), async () => {
      for await (const _ of glob(path(directory))) return true
      return false
    })
    child.kill('SIGKILL')
    await once(child, 'exit')
    await using postgres = await startEmbeddedPostgres({ directory })
    await execute(postgres.url, 'select 1')
    assert.deepEqual(
      (await readdir(directory)).filter((name) => name.includes('unfinished')),
      [],
    )
  }
})
