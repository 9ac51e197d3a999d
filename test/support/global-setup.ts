// One Postgres server for a whole test run: the server at TEST_DATABASE_URL (a superuser's URL), or an embedded server
// without fsync in a temporary directory. Test processes inherit its address, and each test file copies the migrated
// template.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { makeTemplate } from './postgres.ts'

/** Test data need not survive a crash of the machine, and no database lives long enough to need a vacuum. */
const SETTINGS = Object.freeze({
  fsync: 'off',
  full_page_writes: 'off',
  wal_level: 'minimal',
  max_wal_senders: '0',
  autovacuum: 'off',
  max_connections: '300',
})

const running = new AsyncDisposableStack()

export async function globalSetup(): Promise<void> {
  if (process.env.TEST_DATABASE_URL === undefined) {
    const directory = await mkdtemp(join(tmpdir(), 'portolan-test-'))
    running.defer(() => rm(directory, { recursive: true, force: true }))
    const postgres = running.use(await startEmbeddedPostgres({ directory, settings: SETTINGS }))
    process.env.TEST_DATABASE_URL = postgres.url
  }
  process.env.TEST_DATABASE_TEMPLATE = await makeTemplate(process.env.TEST_DATABASE_URL)
}

export async function globalTeardown(): Promise<void> {
  await running.disposeAsync()
}
