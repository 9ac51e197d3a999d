// Storage class, access tier and encryption keys are sent to the store, for small objects and for multipart uploads.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { HeadObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { EMPTY_SESSION } from '#shared/blobs/blob-store.ts'
import { append } from '../contract/blob-store.ts'
import { type ObjectStoreName, startObjectStore, withoutStore } from '../support/parts/object-stores.ts'
import { testRegion } from '../support/region.ts'

const MIB = 1024 * 1024

/** Returns the keys of a small and of a multipart object in a store with these settings. */
async function stored(t: TestContext, name: ObjectStoreName, settings: Record<string, string>) {
  const server = await startObjectStore(name)
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...env } = server.env
  if (AWS_ACCESS_KEY_ID) Object.assign(process.env, { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY })
  const { region } = await testRegion(t, { env: { ...env, ...settings } })
  t.after(() => server[Symbol.asyncDispose]())
  const keys: string[] = []
  for (const size of [1000, 11 * MIB]) {
    const session = await append(region.blobs, EMPTY_SESSION, randomBytes(size))
    keys.push((await region.blobs.complete(session, { algorithm: 'sha256' })).object.key)
  }
  return { server, region, keys }
}

test('S3: storage class and KMS key', { skip: withoutStore('minio') }, async (t) => {
  const { server, keys } = await stored(t, 'minio', {
    PORTOLAN_S3_STORAGE_CLASS: 'REDUCED_REDUNDANCY',
    PORTOLAN_S3_KMS_KEY_ID: 'portolan-key',
  })
  const client = new S3Client({ region: 'us-east-1', endpoint: server.url, forcePathStyle: true })
  for (const key of keys) {
    const head = await client.send(new HeadObjectCommand({ Bucket: 'images', Key: `eu/${key}` }))
    assert.equal(head.StorageClass, 'REDUCED_REDUNDANCY')
    assert.equal(head.ServerSideEncryption, 'aws:kms')
    assert.match(head.SSEKMSKeyId ?? '', /portolan-key$/)
  }
  client.destroy()
})

test('Azure: access tier', { skip: withoutStore('azurite') }, async (t) => {
  const { region, keys } = await stored(t, 'azurite', { PORTOLAN_AZURE_TIER: 'Cool' })
  for (const key of keys) {
    const url = await region.blobs.url(key)
    const head = await fetch(url ?? '', { method: 'HEAD' })
    assert.equal(head.headers.get('x-ms-access-tier'), 'Cool')
  }
})

test('Google: storage class', { skip: withoutStore('gcs') }, async (t) => {
  const { server, keys } = await stored(t, 'gcs', { PORTOLAN_GCS_STORAGE_CLASS: 'NEARLINE' })
  for (const key of keys) {
    const answer = await fetch(`${server.url}/storage/v1/b/images/o/${encodeURIComponent(`eu/${key}`)}`)
    assert.equal(((await answer.json()) as { storageClass: string }).storageClass, 'NEARLINE')
  }
})
