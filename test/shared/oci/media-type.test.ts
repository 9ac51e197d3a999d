import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  isForeignLayer,
  isMediaType,
  manifestKind,
  OCI_INDEX,
  OCI_MANIFEST,
  parseMediaType,
} from '#shared/oci/media-type.ts'

test("four types are manifests; names of Object's methods are not", () => {
  assert.equal(manifestKind(OCI_MANIFEST), 'image')
  assert.equal(manifestKind('application/vnd.docker.distribution.manifest.v2+json'), 'image')
  assert.equal(manifestKind(OCI_INDEX), 'index')
  assert.equal(manifestKind('application/vnd.docker.distribution.manifest.list.v2+json'), 'index')
  for (const type of ['', 'constructor', '__proto__', 'application/json'])
    assert.equal(manifestKind(type), undefined)
})

test('a Content-Type is read without its parameters, and nothing is guessed', () => {
  assert.equal(parseMediaType(`${OCI_INDEX}; charset=utf-8`), OCI_INDEX)
  assert.equal(parseMediaType(` ${OCI_INDEX}\t;x`), OCI_INDEX)
  for (const header of [
    '',
    ';',
    'x',
    'a/b c',
    'a/b,c/d',
    'a/\u00e9',
    'a//b',
    `a/${'b'.repeat(300)}`,
    'x'.repeat(65_536),
  ]) {
    assert.equal(parseMediaType(header), undefined, header.slice(0, 20))
  }
})

test('types are printable and bounded', () => {
  assert.equal(isMediaType('application/vnd.oci.image.layer.v1.tar+zstd'), true)
  for (const type of ['a/b\u0000', 'a/b\n', '/b', 'a/', 'a b/c']) assert.equal(isMediaType(type), false)
})

test('foreign layers are known by their type', () => {
  assert.equal(isForeignLayer('application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'), true)
  assert.equal(isForeignLayer('application/vnd.oci.image.layer.v1.tar'), false)
})
