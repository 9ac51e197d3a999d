import assert from 'node:assert/strict'
import { type ChildProcess, fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, glob, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import pg from 'pg'
import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { eventually } from '../../support/eventually.ts'
import { execute } from '../../support/postgres.ts'
import { testDirectory } from '../../support/region.ts'

const owner = join(import.meta.dirname, '../../support/postgres-owner.ts')

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

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return !/^\d+ \(.*\) Z/.test(spawnSync('cat', [`/proc/${pid}/stat`], { encoding: 'utf8' }).stdout)
  } catch {
    return false
  }
}

/** A process that owns an embedded Postgres. */
async function spawnOwner(
  t: TestContext,
  directory: string,
  options: { uid?: number } = {},
): Promise<{ child: ChildProcess; pid: number; url: string }> {
  const child = fork(owner, [directory], {
    ...options,
    silent: true,
    env: { PATH: process.env.PATH, TMPDIR: '/tmp' },
  })
  t.after(() => child.kill('SIGKILL'))
  const answer = await Promise.race([once(child, 'message'), once(child, 'exit')])
  assert.equal(typeof answer[0], 'object', `the owner ended: ${answer[0]}`)
  return { child, ...(answer[0] as { pid: number; url: string }) }
}

test('the first start makes everything, the next finds it, and both answer', async (t) => {
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

test('a second owner of the directory is told so in one sentence, and the first goes on', async (t) => {
  const directory = await testDirectory(t)
  const first = await spawnOwner(t, directory)
  await assert.rejects(startEmbeddedPostgres({ directory }), (error: Error) =>
    new RegExp(`in use by process ${first.child.pid}.*PORTOLAN_DATA_DIR`).test(error.message),
  )
  await execute(first.url, 'select 1')
})

test('kill -9 of the owner leaves no Postgres behind, and the next start recovers what was committed', async (t) => {
  const directory = await testDirectory(t)
  const first = await spawnOwner(t, directory)
  await execute(first.url, 'create table kept (a int)')
  first.child.kill('SIGKILL')
  await eventually('Postgres to end with its owner', () => !isAlive(first.pid))
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

test('a start right after a kill -9 of everything waits for the busy backends that are left, three times of three', async (t) => {
  const directory = await testDirectory(t)
  for (let round = 0; round < 3; round++) {
    const owner = await spawnOwner(t, directory)
    const client = new pg.Client({ connectionString: owner.url })
    client.on('error', () => {})
    await client.connect()
    // Computes without looking up: it does not notice that its postmaster is gone.
    await client.query(`set statement_timeout = '3s'`)
    const busy = client.query('select count(*) from generate_series(1, 2000000000) as n where n % 7 = 0')
    busy.catch(() => {})
    await eventually('it to compute', async () => {
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

test('kill -9 of Postgres itself: it is started again, every time, and says so', async (t) => {
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
    await eventually('it to answer', () =>
      execute(postgres.url, 'select * from kept').then(
        () => true,
        () => false,
      ),
    )
    assert.equal(restarts.length, round)
  }
})

test("a pid file that means nothing is no obstacle: a dead process, or somebody else's", async (t) => {
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

test("a socket's lock file that is left over is no obstacle, whoever has its number by now", async (t) => {
  const directory = await testDirectory(t)
  {
    await using _ = await startEmbeddedPostgres({ directory })
  }
  // Postgres would say: is another postmaster (PID 1) running?
  await writeFile(join(directory, 'socket', '.s.PGSQL.5432.lock'), `1\n${join(directory, 'data')}\n`)
  await using postgres = await startEmbeddedPostgres({ directory })
  await execute(postgres.url, 'select 1')
})

test('a first start that is killed at any point is recovered by the next', async (t) => {
  const reached = [
    (directory: string) => join(directory, 'password'),
    (directory: string) => join(directory, UNFINISHED, 'data', 'PG_VERSION'),
    (directory: string) => join(directory, UNFINISHED, 'data', 'global', 'pg_control'),
    (directory: string) => join(directory, UNFINISHED, 'data', 'base', '4'),
    (directory: string) => join(directory, 'data', 'PG_VERSION'),
  ]
  for (const path of reached) {
    const directory = await testDirectory(t)
    const child = fork(owner, [directory], { silent: true, env: { PATH: process.env.PATH, TMPDIR: '/tmp' } })
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

test('an initdb that was interrupted is begun anew', async (t) => {
  const directory = await testDirectory(t)
  await mkdir(join(directory, 'data.unfinished-1234', 'data'), { recursive: true })
  await writeFile(join(directory, 'password'), 'from the first try')
  await using postgres = await startEmbeddedPostgres({ directory })
  await execute(postgres.url, 'select 1')
  await assert.rejects(stat(join(directory, 'data.unfinished-1234')))
})

test('another major version and a missing password get one sentence each', async (t) => {
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
  await assert.rejects(startEmbeddedPostgres({ directory }), /holds files but no Postgres/)
})

test('a long path gets its socket elsewhere', async (t) => {
  const directory = join(await testDirectory(t), 'x'.repeat(100))
  await using postgres = await startEmbeddedPostgres({ directory })
  assert.ok(!decodeURIComponent(postgres.url).includes('xxx'))
  await execute(postgres.url, 'select 1')
})

test('root runs it from a directory that only root can enter', {
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
  const readable = spawnSync('test', ['-r', owner], { uid: 65_534 }).status === 0
  if (!readable) return t.skip('the project lies where another user cannot read it')
  const { url } = await spawnOwner(t, directory, { uid: 65_534 })
  assert.equal((await stat(join(directory, 'data'))).uid, 65_534)
  await execute(url, 'select 1')
})
