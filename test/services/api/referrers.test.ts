import assert from 'node:assert/strict'
import { test } from 'node:test'
import { descriptor, INDEX, manifestOf, sha256, testImage } from '../../support/image.ts'
import { type OciClient, ociClient } from '../../support/oci-client.ts'
import { testNode } from '../../support/region.ts'

interface Referrers {
  manifests: {
    digest: string
    artifactType?: string
    annotations?: Record<string, string>
    mediaType: string
  }[]
}

async function referrers(client: OciClient, digest: string, query = '') {
  const got = await client.get(`/v2/a/referrers/${digest}${query}`)
  return { ...got, list: (JSON.parse(got.body.toString()) as Referrers).manifests }
}

test('what names a subject is listed with its type and annotations; an unknown subject has an empty index', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('a', image, 'v1')
  const subject = descriptor(image.mediaType, image.bytes)
  const signature = testImage({
    subject,
    artifactType: 'application/vnd.example.sig',
    annotations: { 'org.example.key': 'a\u0000"é\ud800' },
  })
  await client.pushImage('a', signature)
  const index = manifestOf(INDEX, { manifests: [], subject, annotations: { a: 'b' } })
  const pushed = await client.pushManifest('a', 'idx', index)
  assert.equal(pushed.headers.get('oci-subject'), image.digest)

  const got = await referrers(client, image.digest)
  assert.equal(got.status, 200)
  assert.equal(got.headers.get('content-type'), INDEX, 'exactly, without a charset')
  assert.deepEqual(
    got.list.map(({ digest }) => digest),
    [signature.digest, index.digest],
    'newest last',
  )
  assert.deepEqual(
    got.list[0]?.annotations,
    JSON.parse(JSON.stringify({ 'org.example.key': 'a\u0000"é\ud800' })),
  )
  assert.equal(got.list[0]?.artifactType, 'application/vnd.example.sig')
  assert.equal(got.list[1]?.artifactType, undefined)
  assert.equal(got.headers.get('oci-filters-applied'), null)

  const filtered = await referrers(client, image.digest, '?artifactType=application/vnd.example.sig')
  assert.deepEqual(
    filtered.list.map(({ digest }) => digest),
    [signature.digest],
  )
  assert.equal(filtered.headers.get('oci-filters-applied'), 'artifactType')
  const either = await referrers(
    client,
    image.digest,
    '?artifactType=x/y&artifactType=application/vnd.example.sig',
  )
  assert.equal(either.list.length, 1)

  assert.deepEqual((await referrers(client, sha256('unknown'))).list, [])
  const elsewhere = await client.get(`/v2/nowhere/referrers/${image.digest}`)
  assert.equal(elsewhere.status, 200)
  assert.equal((await client.get('/v2/a/referrers/sha256:x')).status, 400)

  await client.request('DELETE', `/v2/a/manifests/${signature.digest}`)
  assert.deepEqual(
    (await referrers(client, image.digest)).list.map(({ digest }) => digest),
    [index.digest],
  )
})

test('a subject may come later, or never', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const late = testImage()
  const early = manifestOf(INDEX, { manifests: [], subject: descriptor(late.mediaType, late.bytes) })
  assert.equal((await client.pushManifest('a', early.digest, early)).headers.get('oci-subject'), late.digest)
  assert.equal((await referrers(client, late.digest)).list.length, 1)
})

test('what a client lists under the fallback tag is in the answer, once', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('a', image)
  const attached = manifestOf(INDEX, { manifests: [], subject: descriptor(image.mediaType, image.bytes) })
  await client.pushManifest('a', attached.digest, attached)
  const fallback = manifestOf(INDEX, { manifests: [descriptor(attached.mediaType, attached.bytes)] })
  assert.equal((await client.pushManifest('a', image.digest.replace(':', '-'), fallback)).status, 201)
  assert.deepEqual(
    (await referrers(client, image.digest)).list.map(({ digest }) => digest),
    [attached.digest],
  )
})

test('D5: pages are cut by bytes below what clients read, and the links lead through all of them', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('a', image)
  const subject = descriptor(image.mediaType, image.bytes)
  const digests: string[] = []
  for (let count = 0; count < 5; count++) {
    const large = manifestOf(INDEX, {
      manifests: [],
      subject,
      annotations: { pad: `${count}`.repeat(1_500_000) },
    })
    assert.equal((await client.pushManifest('a', large.digest, large)).status, 201)
    digests.push(large.digest)
  }
  const seen: string[] = []
  let pages = 0
  for (let path: string | undefined = `/v2/a/referrers/${image.digest}`; path !== undefined; pages++) {
    const { body, headers } = await client.get(path)
    assert.ok(body.length < 4 * 1024 * 1024)
    seen.push(...(JSON.parse(body.toString()) as Referrers).manifests.map(({ digest }) => digest))
    path = /^<([^>]+)>; rel="next"$/.exec(headers.get('link') ?? '')?.[1]
  }
  assert.deepEqual(seen, digests)
  assert.ok(pages >= 3)
  assert.equal((await client.get(`/v2/a/referrers/${image.digest}?last=x`)).status, 400)
})
