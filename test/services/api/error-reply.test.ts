import assert from 'node:assert/strict'
import { test } from 'node:test'
import { StoreError } from '#shared/blobs/blob-store.ts'
import { ReaderUnavailableError } from '#shared/db/snapshot-reader.ts'
import { RegistryError } from '#shared/errors.ts'
import { toRegistryError } from '../../../services/api/error-reply.ts'
import { sha256, testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { testNode } from '../../support/region.ts'

test('what can pass by itself is UNAVAILABLE with Retry-After; what nobody expected is UNKNOWN', () => {
  const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' })
  for (const thrown of [
    new StoreError('missing', 'x'),
    new StoreError('full', 'x'),
    new ReaderUnavailableError('x'),
    refused,
  ]) {
    const error = toRegistryError(thrown)
    assert.equal(error.status, 503)
    assert.ok(error.headers['Retry-After'])
  }
  assert.equal(toRegistryError(new TypeError('a bug')).code, 'UNKNOWN')
  assert.equal(toRegistryError('text').status, 500)
  const known = new RegistryError('DENIED')
  assert.equal(toRegistryError(known), known)
})

test('a bug answers 500 with nothing of its inside, and the log has it whole', async (t) => {
  const { url, region, logLines } = await testNode(t)
  region.lookups.read = () => Promise.reject(new TypeError('planted bug in /some/path'))
  const got = await ociClient(url).get('/v2/a/manifests/v1')
  assert.equal(got.status, 500)
  assert.doesNotMatch(got.body.toString(), /planted|path|TypeError/)
  assert.ok(logLines.some((line) => line.includes('planted bug') && line.includes('stack')))
})

test('an error that cannot be written ends the connection, not the process', async (t) => {
  const { url, region } = await testNode(t)
  const client = ociClient(url)
  const read = region.lookups.read
  region.lookups.read = () =>
    Promise.reject(new RegistryError('UNAVAILABLE', { headers: { 'X-Bad': 'a\r\nb' } }))
  await assert.rejects(client.get('/v2/a/manifests/v1'))
  region.lookups.read = read
  assert.equal((await client.get('/v2/')).status, 200)
})

test('bytes that are out of reach are 503; bytes that are gone are 404 with the reason, so clients push them again', async (t) => {
  const { url, region } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('a', image)
  const path = `/v2/a/blobs/${sha256(image.blobs[1] ?? '')}`
  const { read } = region.blobs
  region.blobs.read = () => Promise.reject(new StoreError('unavailable', 'away'))
  const away = await client.get(path)
  assert.equal(away.status, 503)
  assert.match(away.body.toString(), /UNAVAILABLE/)
  region.blobs.read = read
  await region.blobs.remove((await region.blobs.list('', 10)).map(({ key }) => key))
  const gone = await client.get(path)
  assert.equal(gone.status, 404)
  assert.match(gone.body.toString(), /BLOB_UNKNOWN.*push it again/)
})
