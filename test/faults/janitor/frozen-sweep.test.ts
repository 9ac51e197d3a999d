// The sweep command is frozen between its last check and the removal, and resumes when another janitor may be running.

import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { test } from 'node:test'
import { EMPTY_SESSION } from '#shared/blobs/blob-store.ts'
import { withLease } from '#shared/db/lease.ts'
import { append } from '../../contract/blob-store.ts'
import { ageBlobs } from '../../support/age-blobs.ts'
import { databaseSession } from '../../support/database.ts'
import { eventually } from '../../support/eventually.ts'
import { freeze } from '../../support/freeze.ts'
import { ociClient } from '../../support/oci-client.ts'
import { runCommand } from '../../support/portolan-process.ts'
import { testNode } from '../../support/region.ts'

/** The server releases a silent lease after 5 s. A busy machine takes longer. */
const FREE_MS_MAX = 60_000

test('a sweep --yes that is frozen past its lease removes nothing when it resumes', {
  skip: process.platform !== 'linux' && 'reads /proc',
}, async (t) => {
  const node = await testNode(t)
  const { region } = node
  // Large enough to be an object of the store and not a row.
  await ociClient(node.url).pushBlob('a', Buffer.alloc(20_000, 'a blob'))
  for (const text of ['one', 'two', 'three']) await append(region.blobs, EMPTY_SESSION, Buffer.from(text))
  await ageBlobs(region)

  const counted = await databaseSession(t, region.databaseUrl)
  const looking = await databaseSession(t, region.databaseUrl)
  const waitsFor = (statement: string) =>
    eventually(`the command to wait in "${statement}"`, async () => {
      const { rows } = await looking.query(
        `select 1 from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock' and query like '%' || $1 || '%'`,
        [statement],
      )
      return rows.length > 0
    })

  // Block the command first after the count, then at the second check of the orphans.
  await counted.query('begin; select from region for update')
  const started = Promise.withResolvers<ChildProcess>()
  const running = runCommand(
    ['sweep', '--yes'],
    {
      PORTOLAN_DATABASE_URL: region.databaseUrl,
      PORTOLAN_DATA_DIR: region.config.dataDir,
      PORTOLAN_LOG_LEVEL: 'error',
    },
    started.resolve,
  )
  const child = await started.promise
  t.after(() => child.kill('SIGKILL'))
  await waitsFor('blobs_seen')
  const last = await databaseSession(t, region.databaseUrl)
  await last.query('begin; lock table attempt in access exclusive mode')
  await counted.query('rollback')
  await waitsFor('attempt')

  await freeze(child)
  // Its query now completes. When it resumes, the command reads that result first.
  await last.query('rollback')
  await eventually(
    'the lease to be free',
    () => withLease(region.databaseUrl, 'janitor', async () => {}),
    FREE_MS_MAX,
  )
  child.kill('SIGCONT')
  const { code, stderr } = await running
  assert.equal((await region.blobs.list('', 10)).length, 4)
  assert.equal(code, 1)
  assert.match(stderr, /the lease janitor was lost/)
})
