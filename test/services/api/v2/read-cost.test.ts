// The cost of a read: no part of a manifest is parsed to serve it. Parses are counted, not timed.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { statement } from '#shared/db/statement.ts'
import { descriptor, IMAGE, INDEX, manifestOf, testImage } from '../../../support/image.ts'
import { ociClient } from '../../../support/oci-client.ts'
import { type TestNode, testNode } from '../../../support/region.ts'

const LINUX_AMD64 = { os: 'linux', architecture: 'amd64' }
/** Longer than any other text that is parsed during a test. */
const LONG_TEXT = 100_000

/** Counts from now on how often JSON of a manifest's size is parsed. */
function countParses(t: TestContext): () => number {
  const parse = t.mock.method(JSON, 'parse')
  return () => parse.mock.calls.filter(({ arguments: [text] }) => String(text).length > LONG_TEXT).length
}

/** An index of 3 MB. Its last child is the image for clients that predate indexes. */
async function pushLargeIndex(node: TestNode) {
  const client = ociClient(node.url)
  const image = testImage()
  await client.pushImage('a', image)
  const child = { ...descriptor(image.mediaType, image.bytes), platform: LINUX_AMD64 }
  const pad = {
    ...child,
    platform: { ...LINUX_AMD64, architecture: 'riscv64' },
    annotations: { pad: 'x'.repeat(150) },
  }
  const index = manifestOf(INDEX, { manifests: [...Array.from({ length: 9_000 }, () => pad), child] })
  assert.ok(index.bytes.length > 3_000_000)
  assert.equal((await client.pushManifest('a', 'v1', index)).status, 201)
  return { index, image }
}

async function narrowHeads(node: TestNode, count: number): Promise<Set<string | null>> {
  const client = ociClient(node.url)
  const answers = await Promise.all(
    Array.from({ length: count }, () =>
      client.request('HEAD', '/v2/a/manifests/v1', { headers: { Accept: IMAGE } }),
    ),
  )
  return new Set(answers.map(({ headers }) => headers.get('docker-content-digest')))
}

test('a large index is parsed once, at its push: a HEAD with a narrow Accept parses nothing, on any node', async (t) => {
  const first = await testNode(t)
  const second = await testNode(t, { sharing: first })
  const parses = countParses(t)
  const { image } = await pushLargeIndex(first)
  assert.equal(parses(), 1)
  for (const node of [first, second]) assert.deepEqual(await narrowHeads(node, 50), new Set([image.digest]))
  assert.equal(parses(), 1)
})

const forget = statement(
  'test-forget-facts',
  `update manifest set single_image = null where digest = :digest`,
)

test('an index that an older release stored is parsed once, by whoever is asked first', async (t) => {
  const first = await testNode(t)
  const { image, index } = await pushLargeIndex(first)
  await first.region.db.rows(forget, { digest: index.digest })
  const second = await testNode(t, { sharing: first })
  const third = await testNode(t, { sharing: first })
  const parses = countParses(t)
  for (const node of [second, third]) assert.deepEqual(await narrowHeads(node, 50), new Set([image.digest]))
  assert.equal(parses(), 1)
})

const store = statement(
  'test-store-bytes',
  `update manifest set bytes = :bytes, size = octet_length(:bytes::bytea), single_image = null where digest = :digest`,
)

test('that what was found cannot be stored spoils no answer, and is logged', async (t) => {
  const first = await testNode(t)
  const { image, index } = await pushLargeIndex(first)
  await first.region.db.rows(forget, { digest: index.digest })
  const second = await testNode(t, { sharing: first })
  const { rows } = second.region.db
  second.region.db.rows = (statement, values) =>
    statement.name === 'fill-in-manifest-facts'
      ? Promise.reject(new Error('read only'))
      : rows(statement, values)
  const parses = countParses(t)
  assert.deepEqual(await narrowHeads(second, 20), new Set([image.digest]))
  assert.equal(parses(), 1)
  assert.equal(second.logLines.filter((line) => line.includes('read only')).length, 1)
})

test('an index that today would be refused is still served, as it is', async (t) => {
  const node = await testNode(t)
  const client = ociClient(node.url)
  const index = manifestOf(INDEX, { manifests: [] })
  await client.pushManifest('a', 'v1', index)
  await node.region.db.rows(store, {
    digest: index.digest,
    bytes: Buffer.from('{"manifests":[],"Manifests":[]}'),
  })
  const second = await testNode(t, { sharing: node })
  assert.deepEqual(await narrowHeads(second, 2), new Set([index.digest]))
})

test('a manifest of 4 MB of nested arrays is refused before anything of it is parsed', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const parses = countParses(t)
  const body = `{"schemaVersion":2,"mediaType":"${INDEX}","manifests":[],"x":[${'[],'.repeat(1_300_000)}[]]}`
  const refused = await client.request('PUT', '/v2/a/manifests/v1', {
    headers: { 'Content-Type': INDEX },
    body,
  })
  assert.equal(refused.status, 400)
  assert.match(await refused.text(), /MANIFEST_INVALID/)
  assert.equal(parses(), 0)
})
