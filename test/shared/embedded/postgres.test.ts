// tests: shared/embedded/binaries.ts, shared/embedded/cluster.ts, shared/embedded/durable-directory.ts
// tests: shared/embedded/if-there.ts, shared/embedded/owner.ts, shared/embedded/postmaster.ts
// tests: shared/embedded/server-lock.ts, shared/embedded/server-log.ts

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import pg from 'pg'
import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { OWNER, spawnOwner } from '../../support/owned-postgres.ts'
import { execute } from '../../support/postgres.ts'
import { testDirectory } from '../../support/region.ts'

test('the first start creates everything, the next one reuses it, and both answer', async (t) => {
  const directory = await testDirectory(t)
  {
    await using postgres = await startEmbeddedPostgres({ directory })
    await execute(postgres.url, 'create table kept (a int)')
    assert.equal((await stat(join(directory, 'password'))).mode & 0o777, 0o600)
    await assert.rejects(
      execute(postgres.url.replace(/:[^:@]+@/, ':wrong@'), 'select 1'),
      /password authentication failed/,
    )
  }
  await using again = await startEmbeddedPostgres({ directory })
  await execute(again.url, 'select * from kept')
})

test('a start right after a kill -9 waits for the orphan instead of failing', async (t) => {
  const directory = await testDirectory(t)
  const first = await spawnOwner(t, directory)
  first.child.kill('SIGKILL')
  await once(first.child, 'exit')
  await using again = await startEmbeddedPostgres({ directory })
  await execute(again.url, 'select 1')
})

test('a stale pid file does not prevent a start, whether its process is dead or another program', async (t) => {
  const directory = await testDirectory(t)
  {
    await using _ = await startEmbeddedPostgres({ directory })
  }
  for (const pid of [999_999, process.pid]) {
    await writeFile(
      join(directory, 'data', 'postmaster.pid'),
      `${pid}\n${join(directory, 'data')}\n1\n5432\n\n\n\nready\n`,
    )
    await using postgres = await startEmbeddedPostgres({ directory })
    await execute(postgres.url, 'select 1')
  }
})

test('a stale lock file of the socket does not prevent a start, whoever has its process id now', async (t) => {
  const directory = await testDirectory(t)
  {
    await using _ = await startEmbeddedPostgres({ directory })
  }
  // Postgres would say: is another postmaster (PID 1) running?
  await writeFile(join(directory, 'socket', '.s.PGSQL.5432.lock'), `1\n${join(directory, 'data')}\n`)
  await using postgres = await startEmbeddedPostgres({ directory })
  await execute(postgres.url, 'select 1')
})

test('an interrupted initdb is started over', async (t) => {
  const directory = await testDirectory(t)
  await mkdir(join(directory, 'data.unfinished-1234', 'data'), { recursive: true })
  await writeFile(join(directory, 'password'), 'from the first try')
  await using postgres = await startEmbeddedPostgres({ directory })
  await execute(postgres.url, 'select 1')
  await assert.rejects(stat(join(directory, 'data.unfinished-1234')))
})

test('another major version and a missing password each get a clear error', async (t) => {
  const directory = await testDirectory(t)
  {
    await using _ = await startEmbeddedPostgres({ directory })
  }
  const version = join(directory, 'data', 'PG_VERSION')
  const written = await readFile(version, 'utf8')
  await writeFile(version, '17\n')
  await assert.rejects(startEmbeddedPostgres({ directory }), /was written by Postgres 17/)
  await writeFile(version, written)
  await writeFile(join(directory, 'password'), '')
  await assert.rejects(startEmbeddedPostgres({ directory }), /password is missing or empty/)
  await rm(join(directory, 'password'))
  await assert.rejects(startEmbeddedPostgres({ directory }), /password is missing/)
  await rm(version)
  await assert.rejects(startEmbeddedPostgres({ directory }), /contains files but no Postgres data/)
})

test('a data directory with a long path has its socket elsewhere', async (t) => {
  const directory = join(await testDirectory(t), 'x'.repeat(100))
  await using postgres = await startEmbeddedPostgres({ directory })
  assert.ok(!decodeURIComponent(postgres.url).includes('xxx'))
  await execute(postgres.url, 'select 1')
})

test('root can run it from a directory that only root can enter', {
  skip: process.getuid?.() !== 0 && 'needs root',
}, async (t) => {
  const directory = await testDirectory(t)
  await chmod(directory, 0o700)
  await using postgres = await startEmbeddedPostgres({ directory: join(directory, 'inner') })
  const client = new pg.Client({ connectionString: postgres.url })
  await client.connect()
  await client.end()
})

test('any other user runs it as itself', {
  skip: process.getuid?.() !== 0 && 'needs root to become another user',
}, async (t) => {
  const directory = await testDirectory(t)
  const { chown } = await import('node:fs/promises')
  await chown(directory, 65_534, 65_534)
  const readable = spawnSync('test', ['-r', OWNER], { uid: 65_534 }).status === 0
  if (!readable) return t.skip('the project lies where another user cannot read it')
  const { url } = await spawnOwner(t, directory, { uid: 65_534 })
  assert.equal((await stat(join(directory, 'data'))).uid, 65_534)
  await execute(url, 'select 1')
})
