// Two processes compete for one data directory. The second waits for a while and is then rejected with one sentence.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { spawnOwner } from '../../support/owned-postgres.ts'
import { freePort, runCommand, startPortolan } from '../../support/portolan-process.ts'
import { execute } from '../../support/postgres.ts'
import { testDirectory } from '../../support/region.ts'

test('a second owner of the directory is rejected in one sentence, and the first keeps running', async (t) => {
  const directory = await testDirectory(t)
  const first = await spawnOwner(t, directory)
  await assert.rejects(startEmbeddedPostgres({ directory }), (error: Error) =>
    new RegExp(`in use by process ${first.child.pid}.*PORTOLAN_DATA_DIR`).test(error.message),
  )
  await execute(first.url, 'select 1')
})

test('a second Portolan on the same data directory is rejected while the first runs', async (t) => {
  const dataDir = await testDirectory(t)
  await using _ = await startPortolan({ dataDir })
  const { code, stderr } = await runCommand([], {
    PORTOLAN_DATA_DIR: dataDir,
    PORTOLAN_LISTEN: `localhost:${await freePort()}`,
    PORTOLAN_METRICS_LISTEN: 'off',
  })
  assert.equal(code, 1)
  assert.match(stderr, /in use by process \d+/)
})
