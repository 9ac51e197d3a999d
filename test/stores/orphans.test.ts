// Leftovers of failed uploads in an object store are found and removed. Objects that a row references are kept.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { EMPTY_SESSION } from '#shared/blobs/blob-store.ts'
import { createOrphanSweep } from '../../services/janitor/sweep-orphans.ts'
import { append } from '../contract/blob-store.ts'
import { eventually } from '../support/eventually.ts'
import { HELD } from '../support/held.ts'
import { sha256 } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'
import { startObjectStore, withoutStore } from '../support/parts/object-stores.ts'
import { testNode } from '../support/region.ts'

const MIB = 1024 * 1024

// MinIO lists multipart uploads only by exact key (and expires them itself), so this test uses versitygw.
test('unreferenced objects and multipart uploads are removed after the grace time, others are kept', {
  skip: withoutStore('versitygw'),
}, async (t) => {
  const server = await startObjectStore('versitygw')
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...env } = server.env
  Object.assign(process.env, { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY })
  const { region, url } = await testNode(t, { env: { ...env, PORTOLAN_ORPHAN_GRACE_SECONDS: '2' } })
  t.after(() => server[Symbol.asyncDispose]())
  const client = ociClient(url)
  const sweep = createOrphanSweep(region)
  const { signal } = new AbortController()

  const kept = randomBytes(11 * MIB)
  await client.pushBlob('a/b', kept)
  const session = await client.request('POST', '/v2/a/b/blobs/uploads/')
  const begun = randomBytes(7 * MIB)
  const patched = await client.request('PATCH', session.headers.get('location') ?? '', { body: begun })

  await append(region.blobs, EMPTY_SESSION, randomBytes(1000))
  const dead = await region.blobs.begin(EMPTY_SESSION, { algorithm: 'sha256' })
  await dead.write(randomBytes(12 * MIB))
  assert.equal(await sweep(signal, HELD), 0, 'nothing is removed within the grace time')

  let removed = 0
  await eventually('the two orphans to be removed', async () => {
    removed += await sweep(signal, HELD)
    return removed === 2
  })
  assert.equal(await sweep(signal, HELD), 0)
  assert.equal(sha256((await client.get(`/v2/a/b/blobs/${sha256(kept)}`)).body), sha256(kept))
  const ended = await client.request('PUT', `${patched.headers.get('location')}?digest=${sha256(begun)}`)
  assert.equal(ended.status, 201)
  assert.equal(sha256((await client.get(`/v2/a/b/blobs/${sha256(begun)}`)).body), sha256(begun))
})
