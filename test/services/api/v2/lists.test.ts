// tests: shared/registry/list.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { INDEX, manifestOf } from '../../../support/image.ts'
import { type OciClient, ociClient } from '../../../support/oci-client.ts'
import { testNode } from '../../../support/region.ts'

const empty = manifestOf(INDEX, { manifests: [] })

async function walk(
  client: OciClient,
  first: string,
  field: string,
): Promise<{ items: string[]; pages: number }> {
  const items: string[] = []
  let pages = 0
  for (let path: string | undefined = first; path !== undefined; pages++) {
    const { body, headers, status } = await client.get(path)
    assert.equal(status, 200)
    items.push(...((JSON.parse(body.toString()) as Record<string, string[]>)[field] ?? []))
    path = /^<(\/v2\/[^>]+)>; rel="next"$/.exec(headers.get('link') ?? '')?.[1]
  }
  return { items, pages }
}

test('tags come in byte order, in pages that link to the next, each once', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const tags = ['a', 'B', 'a-1', 'Z', '_', 'a.b', '10', '9', 'aa', 'a_b']
  for (const tag of tags) await client.pushManifest('r', tag, empty)
  const sorted = [...tags].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  assert.deepEqual(await walk(client, '/v2/r/tags/list', 'tags'), { items: sorted, pages: 1 })
  assert.deepEqual(await walk(client, '/v2/r/tags/list?n=3', 'tags'), { items: sorted, pages: 4 })
  const after = await client.get(`/v2/r/tags/list?last=${sorted[4]}`)
  assert.deepEqual(JSON.parse(after.body.toString()), { name: 'r', tags: sorted.slice(5) })
  const between = await client.get('/v2/r/tags/list?last=a-00&n=1')
  assert.deepEqual(JSON.parse(between.body.toString()).tags, ['a-1'], 'last need not exist')
})

test('no tags are an empty list, no repository is 404, and n=0 is an empty page without a Link', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  await client.pushManifest('r', empty.digest, empty)
  for (const path of ['/v2/r/tags/list', '/v2/r/tags/list?n=0']) {
    const got = await client.get(path)
    assert.deepEqual(JSON.parse(got.body.toString()), { name: 'r', tags: [] })
    assert.equal(got.headers.get('link'), null)
  }
  assert.equal((await client.get('/v2/none/tags/list')).status, 404)
  assert.equal((await client.get('/v2/r/tags/list?n=x')).status, 400)
})

test('the catalog pages through repositories in byte order and forgets deleted ones', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const names = ['b', 'a/b', 'a', 'a-b', 'a.b', 'c/d/e']
  for (const name of names) await client.pushManifest(name, 'v1', empty)
  const sorted = [...names].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  assert.deepEqual(await walk(client, '/v2/_catalog?n=2', 'repositories'), { items: sorted, pages: 3 })
  assert.equal((await client.request('DELETE', '/api/v1/repositories/a/b')).status, 202)
  assert.equal((await client.request('DELETE', '/api/v1/repositories/a/b')).status, 404)
  assert.deepEqual(
    (await walk(client, '/v2/_catalog', 'repositories')).items,
    sorted.filter((name) => name !== 'a/b'),
  )
})

test('a page costs one statement, whatever its depth, and asked again it is known without its rows', async (t) => {
  const { url, region } = await testNode(t)
  const client = ociClient(url)
  for (let count = 0; count < 30; count++) await client.pushManifest('r', `t${count}`, empty)
  const statements: string[] = []
  const rows = region.reads.rows
  region.reads.rows = (statement, values) => {
    statements.push(statement.name)
    return rows(statement, values)
  }
  const before = region.pages.counts().statements
  await client.get('/v2/r/tags/list?n=5')
  await client.get('/v2/r/tags/list?n=5&last=t25')
  await client.get('/v2/r/tags/list?n=5')
  await client.get('/v2/_catalog')
  const { statements: after, secondReads } = region.pages.counts()
  assert.deepEqual(statements, [])
  assert.equal(after - before - secondReads, 4)
})

test('every page is as of its request: what was pushed or deleted before it is told, page after page', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  for (let count = 0; count < 20; count++) {
    const pushed = await client.pushManifest('r', `t${count % 5}`, empty)
    assert.equal(pushed.status, 201)
    const there = await client.get('/v2/r/tags/list?n=10')
    assert.match(String(there.body), new RegExp(`"t${count % 5}"`))
    await client.request('DELETE', `/v2/r/manifests/t${count % 5}`)
    const gone = await client.get('/v2/r/tags/list?n=10')
    assert.doesNotMatch(String(gone.body), new RegExp(`"t${count % 5}"`))
  }
})
