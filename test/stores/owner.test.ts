// Ownership of an object store: two regions that use one place, and foreign objects beside the blobs.
// tests: shared/blobs/ownership.ts

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { EMPTY_SESSION } from '#shared/blobs/blob-store.ts'
import { StoreOwnerError } from '#shared/blobs/store-owner.ts'
import { startJanitor } from '../../services/janitor/service.ts'
import { createOrphanSweep } from '../../services/janitor/sweep-orphans.ts'
import { append } from '../contract/blob-store.ts'
import { eventually } from '../support/eventually.ts'
import { HELD } from '../support/held.ts'
import { sha256 } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'
import {
  type ObjectStoreName,
  recipes,
  startObjectStore,
  withoutStore,
} from '../support/parts/object-stores.ts'
import { emptyDatabase } from '../support/postgres.ts'
import { storeNode, testRegion } from '../support/region.ts'

const signal = new AbortController().signal

async function storeOf(name: ObjectStoreName) {
  const server = await startObjectStore(name)
  const env = Object.fromEntries(Object.entries(server.env).filter(([key]) => key.startsWith('PORTOLAN_')))
  // The default credential chain of the SDK reads these variables.
  for (const [key, value] of Object.entries(server.env)) if (key.startsWith('AWS_')) process.env[key] = value
  return { server, env }
}

for (const name of Object.keys(recipes) as ObjectStoreName[]) {
  test(`${name}: a second region on the same bucket and prefix does not start; a second node does`, {
    skip: withoutStore(name),
  }, async (t) => {
    const { server, env } = await storeOf(name)
    const eu = await storeNode(t, { env })
    t.after(() => server[Symbol.asyncDispose]())
    const client = ociClient(eu.url)
    const blobs = Array.from({ length: 12 }, () => randomBytes(1_000))
    for (const blob of blobs) await client.pushBlob('a', blob)
    const second = await storeNode(t, { sharing: eu, env })
    await ociClient(second.url).pushBlob('a', randomBytes(1_000))
    const us = {
      ...env,
      PORTOLAN_REGION: 'us',
      PORTOLAN_DATABASE_URL: await emptyDatabase(t),
      PORTOLAN_ORPHAN_GRACE_SECONDS: '1',
      PORTOLAN_SWEEP_SECONDS: '1',
    }
    await assert.rejects(
      testRegion(t, { env: us }),
      (error) =>
        error instanceof StoreOwnerError && /belongs to the region "eu": .*adopt-store/.test(error.message),
    )
    assert.equal((await eu.region.blobs.list('', 100)).length, 13)
    for (const blob of blobs) {
      assert.equal(sha256((await client.get(`/v2/a/blobs/${sha256(blob)}`)).body), sha256(blob))
    }
  })
}

test('foreign objects beside the blobs are neither counted nor removed', {
  skip: withoutStore('minio'),
}, async (t) => {
  const { server, env } = await storeOf('minio')
  const { region } = await testRegion(t, { env: { ...env, PORTOLAN_ORPHAN_GRACE_SECONDS: '1' } })
  t.after(() => server[Symbol.asyncDispose]())
  const client = new S3Client({ region: 'us-east-1', endpoint: server.url, forcePathStyle: true })
  const names = ['eu/0000-notes', 'eu/README', 'eu/us/0123', 'eu/zzz']
  for (const Key of names)
    await client.send(new PutObjectCommand({ Bucket: 'images', Key, Body: Buffer.from('mine') }))
  client.destroy()
  await append(region.blobs, EMPTY_SESSION, randomBytes(10))
  assert.equal((await region.blobs.list('', 1)).length, 1, 'a page of foreign objects does not end the list')
  const sweep = createOrphanSweep(region)
  await eventually('the orphan to be removed', async () => (await sweep(signal, HELD)) === 1)
  assert.deepEqual(await region.blobs.list('', 100), [])
})

test('a store that is unavailable at startup is claimed when it returns; until then uploads fail', {
  skip: withoutStore('minio'),
}, async (t) => {
  const { server, env } = await storeOf('minio')
  server.kill('SIGKILL')
  const node = await storeNode(t, { env: { ...env, PORTOLAN_STORE_TIMEOUT_SECONDS: '1' } })
  t.after(() => server[Symbol.asyncDispose]())
  const push = () =>
    ociClient(node.url).request('POST', `/v2/a/blobs/uploads/?digest=${sha256('x')}`, { body: 'x' })
  assert.equal((await push()).status, 503)
  await using _ = await startJanitor(node.region)
  await server.restart()
  await eventually('uploads to work', async () => (await push()).status === 201, 30_000)
  assert.match((await node.region.blobs.readMarker()) ?? '', /"region":"eu"/)
})
