import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EMPTY_SESSION } from '#shared/blobs/blob-store.ts'
import { LeaseLostError, withLease } from '#shared/db/lease.ts'
import { expireUploads } from '../../../services/janitor/expire-uploads.ts'
import { startJanitor } from '../../../services/janitor/service.ts'
import { createOrphanSweep } from '../../../services/janitor/sweep-orphans.ts'
import { append } from '../../contract/blob-store.ts'
import { ageBlobs } from '../../support/age-blobs.ts'
import { eventually } from '../../support/eventually.ts'
import { HELD, heldUntil } from '../../support/held.ts'
import { sha256 } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { execute } from '../../support/postgres.ts'
import { storeNode } from '../../support/region.ts'

const signal = new AbortController().signal

test('an expired upload is unknown immediately, and its bytes are removed with its row', async (t) => {
  const node = await storeNode(t)
  const client = ociClient(node.url)
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  const other = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  await client.request('PATCH', location, { body: Buffer.from('abandoned') })
  const id = location.split('.')[1]
  await execute(
    node.region.databaseUrl,
    `update upload set expires_at = clock_timestamp() where id = '${id}'`,
  )
  assert.equal((await client.request('GET', location)).status, 404)
  assert.equal(await expireUploads(node.region, signal, HELD), 1)
  assert.equal(await expireUploads(node.region, signal, HELD), 0)
  assert.deepEqual(await node.region.blobs.list('', 10), [])
  assert.equal((await client.request('GET', other)).status, 204)
})

test('unreferenced bytes are removed after the grace time; blobs, sessions and recent bytes are kept', async (t) => {
  const node = await storeNode(t)
  const client = ociClient(node.url)
  const sweep = createOrphanSweep(node.region)
  await client.pushBlob('a', Buffer.from('a blob'))
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  await client.request('PATCH', location, { body: Buffer.from('a session') })
  await append(node.region.blobs, EMPTY_SESSION, Buffer.from('an orphan'))
  assert.equal(await sweep(signal, HELD), 0, 'all objects are within the grace time')
  await ageBlobs(node.region)
  await append(node.region.blobs, EMPTY_SESSION, Buffer.from('a young one'))
  assert.equal(await sweep(signal, HELD), 1)
  assert.equal((await node.region.blobs.list('', 10)).length, 3)
  assert.equal((await client.get(`/v2/a/blobs/${sha256('a blob')}`)).body.toString(), 'a blob')
  assert.equal((await client.request('PUT', `${location}?digest=${sha256('a session')}`)).status, 201)
})

test('a janitor that has lost its lease removes no upload and no bytes', async (t) => {
  const node = await storeNode(t)
  const { region } = node
  const client = ociClient(node.url)
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  await client.request('PATCH', location, { body: Buffer.from('abandoned') })
  await execute(region.databaseUrl, 'update upload set expires_at = clock_timestamp()')
  await append(region.blobs, EMPTY_SESSION, Buffer.from('an orphan'))
  await ageBlobs(region)
  const lost = heldUntil(() => true)
  await assert.rejects(expireUploads(region, signal, lost), LeaseLostError)
  await assert.rejects(createOrphanSweep(region)(signal, lost), LeaseLostError)
  let counted = false
  const lostAfterTheCount = createOrphanSweep({
    ...region,
    blobs: {
      ...region.blobs,
      // Called after the count and before any removal.
      dropUnfinished: async () => {
        counted = true
        return 0
      },
    },
  })
  await assert.rejects(
    lostAfterTheCount(
      signal,
      heldUntil(() => counted),
    ),
    LeaseLostError,
  )
  assert.equal((await region.blobs.list('', 10)).length, 2)
})

test('the janitor runs these tasks periodically, and only one janitor works in a region', async (t) => {
  const node = await storeNode(t, {
    env: { PORTOLAN_SWEEP_SECONDS: '1', PORTOLAN_ORPHAN_GRACE_SECONDS: '1' },
  })
  await append(node.region.blobs, EMPTY_SESSION, Buffer.from('an orphan'))
  await ageBlobs(node.region)
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const holding = Promise.withResolvers<void>()
  const lease = withLease(node.region.databaseUrl, 'janitor', () => {
    holding.resolve()
    return held
  })
  await holding.promise
  {
    await using _ = await startJanitor(node.region)
  }
  assert.equal((await node.region.blobs.list('', 10)).length, 1, 'another process holds the lease')
  release()
  await lease
  await using _ = await startJanitor(node.region)
  await eventually(
    'the orphan to be removed',
    async () => (await node.region.blobs.list('', 10)).length === 0,
  )
})
