// tests: shared/db/manifests.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { statement } from '#shared/db/statement.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import type { Region } from '#shared/region.ts'
import { type Listed, listReferrers } from '#shared/registry/list.ts'
import { descriptor, INDEX, manifestOf, sha256, testImage } from '../../../support/image.ts'
import { type OciClient, ociClient } from '../../../support/oci-client.ts'
import { testNode } from '../../../support/region.ts'

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

/** All pages of the subject's referrers, by following the links. */
async function walk(client: OciClient, subject: string): Promise<{ digests: string[]; pages: number }> {
  const digests: string[] = []
  let pages = 0
  for (let path: string | undefined = `/v2/a/referrers/${subject}`; path !== undefined; pages++) {
    const { status, body, headers } = await client.get(path)
    assert.equal(status, 200)
    assert.ok(body.length < 4 * 1024 * 1024, 'no client reads more')
    digests.push(...(JSON.parse(body.toString()) as Referrers).manifests.map(({ digest }) => digest))
    path = /^<([^>]+)>; rel="next"$/.exec(headers.get('link') ?? '')?.[1]
  }
  return { digests, pages }
}

test('D5: pages are cut by bytes below what clients read, and the links lead through all of them', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('a', image)
  const subject = descriptor(image.mediaType, image.bytes)
  const digests: string[] = []
  for (let count = 0; count < 20; count++) {
    const large = manifestOf(INDEX, {
      manifests: [],
      subject,
      annotations: { pad: `${count % 10}`.repeat(400_000), count: `${count}` },
    })
    assert.equal((await client.pushManifest('a', large.digest, large)).status, 201)
    digests.push(large.digest)
  }
  assert.deepEqual(await walk(client, image.digest), { digests, pages: 3 })
  assert.equal((await client.get(`/v2/a/referrers/${image.digest}?last=x`)).status, 400)
})

const addReferrers = statement(
  'test-add-referrers',
  `with made as (
     select 'sha256:' || encode(sha256(convert_to(n::text, 'utf8')), 'hex') as digest,
       convert_to('{"n":' || n || '}', 'utf8') as bytes, n
     from generate_series(1, :count::int) as n
   ),
   stored as (
     insert into manifest (digest, bytes, size) select digest, bytes, octet_length(bytes) from made returning digest
   ),
   named as (
     insert into manifest_reference (manifest, kind, position, digest, target, required, artifact_type, annotations)
     select digest, 'subject', 0, :subject, 'manifest', false, 'application/vnd.example',
       '{"pad":"' || repeat('x', :annotation_bytes::int) || '"}'
     from made
   )
   insert into membership (repository_id, kind, digest, media_type, alive_h, alive_origin)
   select (select id from repository where name = 'a'), 'manifest', digest, :media_type, hlc_now() + n, 'eu' from made`,
)

async function withReferrers(
  region: Region,
  subject: string,
  options: { count: number; annotationBytes: number },
) {
  const { count, annotationBytes } = options
  await region.db.rows(addReferrers, { count, annotation_bytes: annotationBytes, subject, media_type: INDEX })
}

/** Counts from now on the bytes of every value that statements return. */
function meter(region: Region): { bytes: number } {
  const meter = { bytes: 0 }
  const rows = region.db.rows
  region.db.rows = async (statement, values) => {
    const found = await rows(statement, values)
    for (const row of found as Record<string, unknown>[])
      for (const value of Object.values(row)) meter.bytes += Buffer.byteLength(String(value))
    return found
  }
  return meter
}

test('D5: 2,000 referrers with 256 KiB of annotations each: a page costs what it shows, and every one is on one page', async (t) => {
  const { url, region } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('a', image)
  await withReferrers(region, image.digest, { count: 2_000, annotationBytes: 256 * 1024 })
  const metered = meter(region)
  const { body } = await client.get(`/v2/a/referrers/${image.digest}`)
  assert.ok((JSON.parse(body.toString()) as Referrers).manifests.length > 5)
  assert.ok(
    metered.bytes <= body.length * 1.01,
    `${metered.bytes} bytes were read for an answer of ${body.length}`,
  )

  const digests: string[] = []
  let after: string | undefined = ''
  for (let pages = 0; after !== undefined; pages++) {
    assert.ok(pages < 250)
    metered.bytes = 0
    const page: Listed<string> = await listReferrers(region, {
      repository: 'a' as RepositoryName,
      subject: image.digest,
      artifactTypes: [],
      after,
    })
    const shown = page.items.reduce((sum, item) => sum + item.length, 0)
    assert.ok(metered.bytes <= shown * 1.01, `${metered.bytes} bytes were read for ${shown}`)
    digests.push(...page.items.map((item) => /"digest":"([^"]+)"/.exec(item)?.[1] ?? ''))
    after = page.next
  }
  assert.deepEqual(
    digests,
    Array.from({ length: 2_000 }, (_, index) => sha256(`${index + 1}`)),
  )
})

test('pages of small referrers end at 2,000 rows', async (t) => {
  const { url, region } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('a', image)
  await withReferrers(region, image.digest, { count: 4_001, annotationBytes: 1 })
  const { digests, pages } = await walk(client, image.digest)
  assert.equal(new Set(digests).size, 4_001)
  assert.equal(pages, 3)
})

test('a manifest with a subject and more annotations than a list can carry is refused, without a subject it is not', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('a', image)
  const annotations = { pad: 'é'.repeat(256 * 1024) }
  const attached = manifestOf(INDEX, {
    manifests: [],
    subject: descriptor(image.mediaType, image.bytes),
    annotations,
  })
  const refused = await client.pushManifest('a', attached.digest, attached)
  assert.equal(refused.status, 400)
  assert.match(await refused.text(), /MANIFEST_INVALID.*524288/)
  const alone = manifestOf(INDEX, { manifests: [], annotations })
  assert.equal((await client.pushManifest('a', alone.digest, alone)).status, 201)
})

test('annotations that were accepted before there was a bound are left out of the list, the manifest has them', async (t) => {
  const { url, region } = await testNode(t)
  const client = ociClient(url)
  const image = testImage()
  await client.pushImage('a', image)
  await withReferrers(region, image.digest, { count: 20, annotationBytes: 600_000 })
  const { list, headers } = await referrers(client, image.digest)
  assert.equal(list.length, 20)
  assert.equal(headers.get('link'), null)
  assert.ok(
    list.every((shown) => !('annotations' in shown) && shown.artifactType === 'application/vnd.example'),
  )
})
