// A process opens only what its services need. The webhook sender and the relay need only the database, so an
// unreachable object store or a missing accounts file does not affect them.
// tests: shared/region-database.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadConfig } from '#shared/config/load.ts'
import { openRegion } from '#shared/region.ts'
import { startRelay } from '../../services/relay/service.ts'
import { startWebhooks } from '../../services/webhooks/service.ts'
import { eventually } from '../support/eventually.ts'
import { testDatabase } from '../support/postgres.ts'
import { TEST_SECRETS_KEY, testDirectory } from '../support/region.ts'

test('relay and webhooks start and work without the blob store and without the accounts', async (t) => {
  const logLines: string[] = []
  const config = loadConfig({
    PORTOLAN_DATABASE_URL: await testDatabase(t),
    PORTOLAN_DATA_DIR: await testDirectory(t),
    PORTOLAN_LISTEN: '127.0.0.1:0',
    PORTOLAN_METRICS_LISTEN: 'off',
    PORTOLAN_SECRETS_KEY: TEST_SECRETS_KEY,
    PORTOLAN_AUTH: 'accounts',
    PORTOLAN_HTPASSWD_FILE: '/nowhere/htpasswd',
    PORTOLAN_BLOBS: 's3',
    PORTOLAN_S3_BUCKET: 'away',
    // Nothing listens on the discard port.
    PORTOLAN_S3_ENDPOINT: 'http://127.0.0.1:9',
    PORTOLAN_S3_REGION: 'nowhere',
  })
  await using region = await openRegion(config, { logTo: { write: (line) => logLines.push(line) } })
  await using _relay = await startRelay(region)
  await using _webhooks = await startWebhooks(region)
  await region.db.rows({
    name: 'test-outbox',
    text: `insert into outbox (repository, shard, type, subject, payload, actor, request, instance)
      values ('a', 0, 'dev.portolan.registry.push.v1', 'a:b', '{}', '', '{}', '')`,
    parameters: [],
  })
  await eventually('the relay to number the event', async () => {
    const rows = await region.db.rows({
      name: 'test-log',
      text: `select 1 from event_log where repository = 'a'`,
      parameters: [],
    })
    return rows.length === 1
  })
  assert.deepEqual(await region.readiness(), { ready: true, reasons: [] })
  assert.deepEqual(
    logLines.filter((line) => line.includes('store')),
    [],
  )
})
