// tests: shared/registry/pull.ts, shared/registry/push-manifest.ts, shared/registry/registry.ts
// tests: shared/registry/remove.ts

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { descriptor, INDEX, manifestOf, sha256, sha512, testImage } from '../../../support/image.ts'
import { ociClient } from '../../../support/oci-client.ts'
import { testNode } from '../../../support/region.ts'

test('an image that was pushed is pulled byte for byte, by tag and by digest', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('team/app', image, 'v1')
  for (const reference of ['v1', image.digest]) {
    const got = await client.get(`/v2/team/app/manifests/${reference}`)
    assert.equal(got.status, 200)
    assert.deepEqual(got.body, image.bytes)
    assert.equal(got.headers.get('content-type'), image.mediaType)
    assert.equal(got.headers.get('docker-content-digest'), image.digest)
    const head = await client.request('HEAD', `/v2/team/app/manifests/${reference}`)
    assert.equal(head.status, 200)
    assert.equal(head.headers.get('content-length'), String(image.bytes.length))
  }
  for (const blob of image.blobs) {
    const got = await client.get(`/v2/team/app/blobs/${sha256(blob)}`)
    assert.deepEqual(got.body, blob)
    assert.equal(got.headers.get('content-type'), 'application/octet-stream')
  }
})

test('two regions in one process share nothing', async (t) => {
  const eu = await testNode(t)
  const us = await testNode(t)
  const image = testImage()
  await ociClient(eu.url).pushImage('a', image, 'v1')
  assert.equal((await ociClient(us.url).get('/v2/a/manifests/v1')).status, 404)
  assert.equal((await ociClient(us.url).get(`/v2/a/blobs/${sha256(image.blobs[0] ?? '')}`)).status, 404)
})

test('the second node sees what the first was told, at once', async (t) => {
  const first = await testNode(t)
  const second = await testNode(t, { sharing: first })
  const image = testImage()
  await ociClient(first.url).pushImage('a', image, 'v1')
  assert.deepEqual((await ociClient(second.url).get('/v2/a/manifests/v1')).body, image.bytes)
  assert.equal((await ociClient(second.url).request('DELETE', '/v2/a/manifests/v1')).status, 202)
  assert.equal((await ociClient(first.url).get('/v2/a/manifests/v1')).status, 404)
})

test('an upload begun on one node goes on and ends on others', async (t) => {
  const first = await testNode(t)
  const second = await testNode(t, { sharing: first })
  const nodes = [first, second].map(({ url }) => ociClient(url))
  const bytes = randomBytes(300_000)
  const [a, b] = nodes as [ReturnType<typeof ociClient>, ReturnType<typeof ociClient>]
  const location = (await a.request('POST', '/v2/a/blobs/uploads/')).headers.get('location')
  for (const [index, node] of [b, a, b].entries()) {
    const part = bytes.subarray(index * 100_000, (index + 1) * 100_000)
    const patched = await node.request('PATCH', location ?? '', {
      body: part,
      headers: { 'Content-Range': `${index * 100_000}-${(index + 1) * 100_000 - 1}` },
    })
    assert.equal(patched.status, 202)
    assert.equal(patched.headers.get('range'), `0-${(index + 1) * 100_000 - 1}`)
  }
  const ended = await a.request('PUT', `${location}?digest=${sha512(bytes)}`)
  assert.equal(ended.status, 201)
  assert.equal(ended.headers.get('location'), `/v2/a/blobs/${sha512(bytes)}`)
  assert.deepEqual((await b.get(`/v2/a/blobs/${sha512(bytes)}`)).body, bytes)
})

test('a manifest whose parts are missing is refused with every one of them', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  const refused = await client.pushManifest('a', 'v1', image)
  assert.equal(refused.status, 404)
  const { errors } = (await refused.json()) as { errors: { code: string; detail: { digest: string } }[] }
  assert.deepEqual(new Set(errors.map(({ code }) => code)), new Set(['MANIFEST_BLOB_UNKNOWN']))
  assert.deepEqual(
    new Set(errors.map(({ detail }) => detail.digest)),
    new Set(image.blobs.map((blob) => sha256(blob))),
  )
  assert.equal((await client.get('/v2/a/tags/list')).status, 404, 'a refused push leaves no repository')
})

test('what a live manifest names cannot be deleted, and the answer says who names it', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('a', image, 'v1')
  const index = manifestOf(INDEX, { manifests: [descriptor(image.mediaType, image.bytes)] })
  assert.equal((await client.pushManifest('a', 'all', index)).status, 201)

  const layer = sha256(image.blobs[1] ?? '')
  const ofBlob = await client.request('DELETE', `/v2/a/blobs/${layer}`)
  assert.equal(ofBlob.status, 405)
  assert.deepEqual(((await ofBlob.json()) as { errors: { detail: unknown }[] }).errors[0]?.detail, {
    referencedBy: [image.digest],
  })
  assert.equal((await client.request('DELETE', `/v2/a/manifests/${image.digest}`)).status, 405)
  for (const path of [`manifests/${index.digest}`, `manifests/${image.digest}`, `blobs/${layer}`]) {
    assert.equal((await client.request('DELETE', `/v2/a/${path}`)).status, 202)
    assert.equal((await client.get(`/v2/a/${path}`)).status, 404)
  }
  assert.deepEqual(JSON.parse((await client.get('/v2/a/tags/list')).body.toString()).tags, [])
})

test('a delete and a push of the same bytes in the same millisecond leave the push alive, ten times over', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const empty = Buffer.from('{}')
  for (let round = 0; round < 10; round++) {
    await client.pushBlob('a', empty)
    assert.equal((await client.get(`/v2/a/blobs/${sha256(empty)}`)).status, 200)
    assert.equal((await client.request('DELETE', `/v2/a/blobs/${sha256(empty)}`)).status, 202)
    assert.equal((await client.get(`/v2/a/blobs/${sha256(empty)}`)).status, 404)
  }
})

test('a push with a condition is refused with 412 and changes nothing', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const [one, two] = [testImage(), testImage()]
  await client.pushImage('a', one)
  await client.pushImage('a', two)
  const put = (image: typeof one, headers: Record<string, string>) =>
    client.request('PUT', '/v2/a/manifests/v1', {
      headers: { 'Content-Type': image.mediaType, ...headers },
      body: image.bytes,
    })
  assert.equal((await put(one, { 'If-Match': '*' })).status, 412, 'nothing to match yet')
  assert.equal((await put(one, { 'If-None-Match': '*' })).status, 201)
  assert.equal((await put(two, { 'If-None-Match': '*' })).status, 412)
  assert.equal((await put(two, { 'If-Match': `"${two.digest}"` })).status, 412)
  assert.equal((await client.get('/v2/a/manifests/v1')).headers.get('docker-content-digest'), one.digest)
  assert.equal((await put(two, { 'If-Match': `"${one.digest}"` })).status, 201)
  assert.equal((await put(one, { 'If-Match': '*' })).status, 201)
  await client.request('DELETE', '/v2/a/manifests/v1')
  assert.equal((await put(one, { 'If-Match': '*' })).status, 412, 'a tombstone does not match')
  assert.equal((await put(one, { 'If-None-Match': '*' })).status, 201, 'a tombstone is no tag')
  assert.equal((await put(two, { 'If-None-Match': `"${one.digest}"` })).status, 412)
  const tooLong = `"${'x'.repeat(9_000)}"`
  assert.equal((await put(two, { 'If-None-Match': tooLong })).status, 400, 'never ignored')
  assert.equal((await put(two, { 'If-Match': tooLong })).status, 412)
})

test('the conditions of a push by digest are about the tags it names, or about the digest', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const [one, two] = [testImage(), testImage()]
  await client.pushImage('a', one, 'v1')
  for (const blob of two.blobs) await client.pushBlob('a', blob)
  const put = (image: typeof one, query: string, headers: Record<string, string>) =>
    client.request('PUT', `/v2/a/manifests/${image.digest}${query}`, {
      headers: { 'Content-Type': image.mediaType, ...headers },
      body: image.bytes,
    })
  const pointsTo = async (tag: string) =>
    (await client.get(`/v2/a/manifests/${tag}`)).headers.get('docker-content-digest')
  assert.equal((await put(one, '', { 'If-None-Match': '*' })).status, 412, 'the digest is there')
  assert.equal((await put(two, '', { 'If-Match': '*' })).status, 412, 'the digest is not there')
  assert.equal((await put(two, '?tag=v2&tag=v1', { 'If-None-Match': '*' })).status, 412, 'v1 is there')
  assert.equal((await put(two, '?tag=v1&tag=v2', { 'If-Match': '*' })).status, 412, 'v2 is not there')
  assert.deepEqual([await pointsTo('v1'), await pointsTo('v2')], [one.digest, null])
  assert.equal((await put(two, '?tag=v2', { 'If-None-Match': '*' })).status, 201)
  assert.equal((await put(one, '?tag=v1', { 'If-Match': `"${one.digest}"` })).status, 201)
  assert.deepEqual([await pointsTo('v1'), await pointsTo('v2')], [one.digest, two.digest])
})

test('of twenty pushes that all want to be first exactly one is', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const images = Array.from({ length: 20 }, () => testImage())
  for (const image of images) await client.pushImage('a', image)
  const statuses = await Promise.all(
    images.map(async (image) => {
      const answer = await client.request('PUT', '/v2/a/manifests/first', {
        headers: { 'Content-Type': image.mediaType, 'If-None-Match': '*' },
        body: image.bytes,
      })
      return answer.status
    }),
  )
  assert.equal(statuses.filter((status) => status === 201).length, 1)
  assert.equal(statuses.filter((status) => status === 412).length, 19)
})
