import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { rename } from 'node:fs/promises'
import { test } from 'node:test'
import { createScrub } from '../../../services/janitor/scrub.ts'
import { fileOf, HARMS, harmFile } from '../../support/blob-harm.ts'
import { sha256 } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { execute } from '../../support/postgres.ts'
import { testNode } from '../../support/region.ts'

const { signal } = new AbortController()

test('the scrub finds damage in blobs that nobody pulls, and leaves sound blobs unchanged', async (t) => {
  const node = await testNode(t)
  const client = ociClient(node.url)
  const blobs = Array.from({ length: 12 }, () => randomBytes(300_000))
  for (const bytes of blobs) await client.pushBlob('a', bytes)
  for (const [index, harm] of HARMS.entries())
    await harmFile(await fileOf(node, blobs[index] ?? Buffer.alloc(0)), harm)
  const scrub = createScrub(node.region)
  // One run to the last digest, one from the first.
  const runs = [await scrub(signal), await scrub(signal)]
  assert.equal(
    runs.reduce((sum, { damaged }) => sum + damaged, 0),
    HARMS.length,
  )
  for (const [index, bytes] of blobs.entries()) {
    const { status } = await client.request('HEAD', `/v2/a/blobs/${sha256(bytes)}`)
    assert.equal(status, index < HARMS.length ? 404 : 200)
  }
})

test('a restored file is served again', async (t) => {
  const node = await testNode(t)
  const client = ociClient(node.url)
  const bytes = randomBytes(3_000_000)
  await client.pushBlob('a', bytes)
  const path = await fileOf(node, bytes)
  await rename(path, `${path}.away`)
  const blob = `/v2/a/blobs/${sha256(bytes)}`
  assert.equal((await client.get(blob)).status, 404)
  const scrub = createScrub(node.region)
  assert.equal((await scrub(signal)).healed, 0)
  await rename(`${path}.away`, path)
  assert.equal((await scrub(signal)).healed, 1)
  assert.ok((await client.get(blob)).body.equals(bytes))
})

test('a run is bounded in bytes, and the next run continues where it stopped', async (t) => {
  const node = await testNode(t)
  await execute(
    node.region.databaseUrl,
    // Each row claims 100 MiB. A run checks three of them, whatever it finds.
    `insert into blob (digest, store, key, size, lease_until)
     select 'sha256:' || encode(sha256(i::text::bytea), 'hex'), 'file', lpad(to_hex(i), 32, '0'), 104857600, now()
     from generate_series(1, 10) as i`,
  )
  const scrub = createScrub(node.region)
  let looked = 0
  for (let runs = 0; runs < 8 && looked < 10; runs++) {
    const run = await scrub(signal)
    assert.ok(run.looked <= 3, String(run.looked))
    looked += run.looked
  }
  assert.equal(looked, 10, 'each blob once')
})

test('an aborted scrub stops', async (t) => {
  const node = await testNode(t)
  await ociClient(node.url).pushBlob('a', randomBytes(3_000_000))
  assert.deepEqual(await createScrub(node.region)(AbortSignal.abort()), { looked: 0, damaged: 0, healed: 0 })
})
