// A wrong or empty database meets a full store: nothing in the store may be removed.
// tests: shared/blobs/ownership.ts, shared/db/store-owner.ts, shared/region-stores.ts

import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { StoreOwnerError } from '#shared/blobs/store-owner.ts'
import { startJanitor } from '../../../services/janitor/service.ts'
import { createOrphanSweep } from '../../../services/janitor/sweep-orphans.ts'
import { ageBlobs } from '../../support/age-blobs.ts'
import { eventually } from '../../support/eventually.ts'
import { HELD } from '../../support/held.ts'
import { ociClient } from '../../support/oci-client.ts'
import { runCommand } from '../../support/portolan-process.ts'
import { emptyDatabase, execute } from '../../support/postgres.ts'
import { storeNode, type TestNode, testRegion } from '../../support/region.ts'

const BLOBS = 20
const signal = new AbortController().signal

async function fullNode(t: TestContext): Promise<TestNode> {
  const node = await storeNode(t)
  for (let count = 0; count < BLOBS; count++) {
    await ociClient(node.url).pushBlob('a', Buffer.from(`blob ${count}`))
  }
  await ageBlobs(node.region)
  return node
}

async function objects(node: TestNode): Promise<number> {
  return (await node.region.blobs.list('', 100)).length
}

function markerPath(node: TestNode): string {
  return join(node.region.config.dataDir, 'eu', 'blobs', 'portolan-store.json')
}

const refusal = (words: RegExp) => (error: unknown) =>
  error instanceof StoreOwnerError &&
  words.test(error.message) &&
  /npm start -- adopt-store/.test(error.message)

test('a region with a new database on a store of old blobs does not start, and nothing is removed', async (t) => {
  const node = await fullNode(t)
  const env = { PORTOLAN_DATABASE_URL: await emptyDatabase(t) }
  await assert.rejects(
    testRegion(t, { sharing: node, env }),
    refusal(/^The blob directory .* belongs to another database of the region "eu"/),
  )
  await rm(markerPath(node))
  await assert.rejects(testRegion(t, { sharing: node, env }), refusal(/knows none of them/))
  assert.equal(await objects(node), BLOBS)
})

test('a store from a release without markers is adopted silently by the database that has its rows', async (t) => {
  const node = await fullNode(t)
  await rm(markerPath(node))
  const again = await storeNode(t, { sharing: node })
  assert.equal(again.logLines.length, 0)
  assert.match((await node.region.blobs.readMarker()) ?? '', new RegExp(node.region.owner.database))
})

test('a region whose objects are all gone does not start: unmounted volume or wrong store', async (t) => {
  const node = await fullNode(t)
  for (const { key } of await node.region.blobs.list('', 100)) await node.region.blobs.remove([key])
  await rm(markerPath(node))
  await assert.rejects(testRegion(t, { sharing: node }), refusal(/is empty, and this database names objects/))
})

test('when a store changes owner, the running region stops sweeps and uploads; pulls continue', async (t) => {
  const node = await fullNode(t)
  const client = ociClient(node.url)
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  await node.region.blobs.writeMarker(
    JSON.stringify({ format: 1, region: 'us', database: node.region.owner.database }),
    { replace: true },
  )
  await execute(
    node.region.databaseUrl,
    'delete from membership; delete from blob where digest > $$sha256:c$$',
  )
  const sweep = createOrphanSweep(node.region)
  assert.equal(await sweep(signal, HELD), 0)
  assert.equal(await sweep(signal, HELD), 0)
  assert.equal(await objects(node), BLOBS)
  const told = node.logLines.filter((line) => line.includes('sweeps are blocked'))
  assert.equal(told.length, 1, 'one line for each change')
  assert.match(await node.region.metrics.text(), /portolan_sweep_blocked\{reason="owner"\} 1/)
  assert.equal((await client.request('PATCH', location, { body: Buffer.from('x') })).status, 503)
  await eventually('readiness to fail', async () => (await fetch(`${node.url}/readyz`)).status === 503)
})

test('adopt-store reports the store, adopts it only with --yes, and the sweep limits still apply', async (t) => {
  const node = await fullNode(t)
  const env = {
    PORTOLAN_DATABASE_URL: await emptyDatabase(t),
    PORTOLAN_DATA_DIR: node.region.config.dataDir,
    PORTOLAN_LOG_LEVEL: 'error',
  }
  const refused = await runCommand([], env)
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /^The blob directory .*adopt-store`\.\n$/)
  const asked = await runCommand(['adopt-store'], env)
  assert.equal(asked.code, 1)
  assert.match(asked.stdout, /holds 20 objects; this database has rows for 0 of them[\s\S]*adopt-store --yes/)
  assert.match((await node.region.blobs.readMarker()) ?? '', new RegExp(node.region.owner.database))
  const adopted = await runCommand(['adopt-store', '--yes'], env)
  assert.equal(adopted.code, 0, adopted.stderr)
  assert.equal((await runCommand(['adopt-store'], env)).code, 0)
  const { region, logLines } = await testRegion(t, {
    sharing: node,
    env: { PORTOLAN_DATABASE_URL: env.PORTOLAN_DATABASE_URL, PORTOLAN_SWEEP_SECONDS: '1' },
  })
  await using _ = await startJanitor(region)
  await eventually('the sweep to be blocked', () => logLines.some((line) => line.includes('"unknown"')))
  assert.equal(await objects(node), BLOBS)
})
