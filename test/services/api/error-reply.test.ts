import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { StoreError } from '#shared/blobs/blob-store.ts'
import { ReaderUnavailableError } from '#shared/db/snapshot-reader.ts'
import { RegistryError } from '#shared/errors.ts'
import { toRegistryError } from '../../../services/api/error-reply.ts'
import { eventually } from '../../support/eventually.ts'
import { sha256, testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { storeNode } from '../../support/region.ts'

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
  const states = [
    '40001',
    '40P01',
    '53100',
    '53200',
    '53300',
    '57014',
    '57P01',
    '57P03',
    '55P03',
    '25006',
    '25P03',
    '08006',
  ]
  for (const code of states) {
    const error = toRegistryError(Object.assign(new Error('from Postgres'), { code }))
    assert.equal(error.code, 'UNAVAILABLE', code)
    assert.ok(error.headers['Retry-After'], code)
  }
  for (const message of [
    'Connection terminated unexpectedly',
    'timeout exceeded when trying to connect',
    'Query read timeout',
    'Connection terminated due to connection timeout',
  ])
    assert.equal(toRegistryError(new Error(message)).code, 'UNAVAILABLE', message)
  for (const code of ['23505', '42P01', 'XX000'])
    assert.equal(toRegistryError(Object.assign(new Error('x'), { code })).code, 'UNKNOWN', code)
  assert.equal(toRegistryError(new TypeError('a bug')).code, 'UNKNOWN')
  assert.equal(toRegistryError('text').status, 500)
  const known = new RegistryError('DENIED')
  assert.equal(toRegistryError(known), known)
})

test('a bug answers 500 with nothing of its inside, and the log has it whole', async (t) => {
  const { url, region, logLines } = await storeNode(t)
  region.lookups.read = () => Promise.reject(new TypeError('planted bug in /some/path'))
  const got = await ociClient(url).get('/v2/a/manifests/v1')
  assert.equal(got.status, 500)
  assert.doesNotMatch(got.body.toString(), /planted|path|TypeError/)
  assert.ok(logLines.some((line) => line.includes('planted bug') && line.includes('stack')))
})

test('an error that cannot be written ends the connection, not the process', async (t) => {
  const { url, region } = await storeNode(t)
  const client = ociClient(url)
  const read = region.lookups.read
  region.lookups.read = () =>
    Promise.reject(new RegistryError('UNAVAILABLE', { headers: { 'X-Bad': 'a\r\nb' } }))
  await assert.rejects(client.get('/v2/a/manifests/v1'))
  region.lookups.read = read
  assert.equal((await client.get('/v2/')).status, 200)
})

test('bytes that are out of reach are 503; bytes that are gone are 404 with the reason, so clients push them again', async (t) => {
  const { url, region } = await storeNode(t)
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

test('a client that leaves while the store makes it wait is no failure; a bug meanwhile is one', async (t) => {
  const { port, url, region, logLines } = await storeNode(t)
  const location = (await ociClient(url).request('POST', '/v2/a/blobs/uploads/')).headers.get('location')
  const failures = () => logLines.filter((line) => !line.includes('"level":"info"'))
  const leave = async (thrown: (reason: unknown) => unknown) => {
    const { promise: waiting, resolve: waits } = Promise.withResolvers<void>()
    region.blobs.begin = (_session, { signal = new AbortController().signal }) => {
      waits()
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(thrown(signal.reason))))
    }
    const socket = connect(port, '127.0.0.1')
    socket.write(`PATCH ${location} HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nfirst`)
    await waiting
    logLines.length = 0
    socket.resetAndDestroy()
    await eventually('the log line', () => logLines.some((line) => line.includes('"status":499')))
    // A log line about the failure is written in the same turn or not at all.
    await new Promise((resolve) => setImmediate(resolve))
  }
  await leave((reason) => reason)
  assert.deepEqual(failures(), [])
  await leave((reason) => new StoreError('unavailable', 'broken off', { cause: reason }))
  assert.deepEqual(failures(), [])
  await leave(() => new TypeError('a bug'))
  assert.match(failures().join(), /a bug/)
})
