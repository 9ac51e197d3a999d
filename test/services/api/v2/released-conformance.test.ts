// What the released OCI conformance suite 1.1.1 tests and the suite in CI (its successor, test/conformance) does not: a
// reference outside the grammar names nothing, so reading it returns 404. The names below are those of the released
// suite.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { IMAGE, INDEX, manifestOf, testImage } from '../../../support/image.ts'
import { ociClient } from '../../../support/oci-client.ts'
import { testNode } from '../../../support/region.ts'

const NONEXISTENT_MANIFEST = '.INVALID_MANIFEST_NAME'

async function repository(t: TestContext) {
  const { url } = await testNode(t)
  const client = ociClient(url)
  await client.pushImage('conformance/testrepo', testImage(), 'tagtest0')
  return client
}

async function codes(response: Response): Promise<string[]> {
  const { errors } = (await response.json()) as { errors: { code: string }[] }
  return errors.map(({ code }) => code)
}

test('01 Pull, Pull manifests: HEAD request to nonexistent manifest should return 404', async (t) => {
  const client = await repository(t)
  const head = await client.request('HEAD', `/v2/conformance/testrepo/manifests/${NONEXISTENT_MANIFEST}`)
  assert.equal(head.status, 404)
})

test('01 Pull, Pull manifests: GET nonexistent manifest should return 404', async (t) => {
  const client = await repository(t)
  const got = await client.request('GET', `/v2/conformance/testrepo/manifests/${NONEXISTENT_MANIFEST}`)
  assert.equal(got.status, 404)
  assert.deepEqual(await codes(got), ['MANIFEST_UNKNOWN'])
})

test('02 Push, Manifest Upload: GET nonexistent manifest should return 404', async (t) => {
  const client = await repository(t)
  const index = manifestOf(INDEX, { manifests: [] })
  for (const tag of ['test0', 'test1', 'test2', 'test3']) {
    assert.equal((await client.pushManifest('conformance/testrepo', tag, index)).status, 201)
  }
  const got = await client.request('GET', `/v2/conformance/testrepo/manifests/${NONEXISTENT_MANIFEST}`)
  assert.equal(got.status, 404)
  assert.deepEqual(await codes(got), ['MANIFEST_UNKNOWN'])
})

test('a read of any reference outside the grammar is 404 MANIFEST_UNKNOWN, in any repository', async (t) => {
  const client = await repository(t)
  const references = [
    '.x',
    '-x',
    'a'.repeat(129),
    'sha256:totallywrong',
    `SHA256:${'0'.repeat(64)}`,
    'a%2fb',
    'x~',
  ]
  for (const reference of references) {
    for (const name of ['conformance/testrepo', 'nowhere']) {
      const path = `/v2/${name}/manifests/${reference}`
      const got = await client.request('GET', path)
      assert.equal(got.status, 404, path)
      assert.deepEqual(await codes(got), ['MANIFEST_UNKNOWN'], path)
      assert.equal((await client.request('HEAD', path)).status, 404, path)
    }
  }
})

test('a write to such a reference is still refused as malformed', async (t) => {
  const client = await repository(t)
  const index = manifestOf(INDEX, { manifests: [] })
  const cases = [
    ['.INVALID_MANIFEST_NAME', 'TAG_INVALID'],
    ['sha256:totallywrong', 'DIGEST_INVALID'],
  ] as const
  for (const [reference, code] of cases) {
    const put = await client.pushManifest('conformance/testrepo', reference, index)
    assert.equal(put.status, 400)
    assert.deepEqual(await codes(put), [code])
    const deleted = await client.request('DELETE', `/v2/conformance/testrepo/manifests/${reference}`)
    assert.equal(deleted.status, 400)
    assert.deepEqual(await codes(deleted), [code])
  }
  const wrong = await client.request('PUT', '/v2/conformance/testrepo/manifests/sha256:totallywrong', {
    headers: { 'Content-Type': IMAGE },
    body: 'blablabla',
  })
  assert.equal(wrong.status, 400)
  assert.deepEqual(await codes(wrong), ['DIGEST_INVALID'])
})
