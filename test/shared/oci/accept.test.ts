import assert from 'node:assert/strict'
import { test } from 'node:test'
import { wantsSingleImage } from '#shared/oci/accept.ts'
import { DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST } from '#shared/oci/media-type.ts'

test('only a client that lists image types and no index type gets an image from an index', () => {
  assert.equal(wantsSingleImage(DOCKER_MANIFEST), true)
  assert.equal(wantsSingleImage(`application/json, ${OCI_MANIFEST};q=0.5`), true)
  for (const accept of [
    undefined,
    '',
    '*/*',
    'application/json',
    `${OCI_MANIFEST}, ${OCI_INDEX}`,
    `${OCI_MANIFEST}, */*`,
    `${OCI_MANIFEST}, application/*`,
  ]) {
    assert.equal(wantsSingleImage(accept), false, String(accept))
  }
})

test('D9: a header of any size is parsed in one pass or not at all', () => {
  assert.equal(wantsSingleImage(`${OCI_MANIFEST},`.repeat(2_000)), false)
})

test('a list of thousands of types is not parsed: the stored manifest is the answer', () => {
  assert.equal(wantsSingleImage(`${OCI_MANIFEST},${'a/b,'.repeat(126)}a/b`), true)
  assert.equal(wantsSingleImage(`${OCI_MANIFEST},${'a/b,'.repeat(127)}a/b`), false)
  assert.equal(wantsSingleImage(`${'a,'.repeat(4_000)}${OCI_MANIFEST}`), false)
})
