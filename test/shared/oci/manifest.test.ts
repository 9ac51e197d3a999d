import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { RegistryError } from '#shared/errors.ts'
import { type Manifest, parseManifest } from '#shared/oci/manifest.ts'
import { DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST } from '#shared/oci/media-type.ts'

const DIGEST = `sha256:${'0'.repeat(64)}`
const OTHER = `sha256:${'1'.repeat(64)}`
const bounds = { descriptorsMax: 10_000 }
const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: DIGEST, size: 2 }
const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: OTHER, size: 3 }
const image = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] }
const index = {
  schemaVersion: 2,
  mediaType: OCI_INDEX,
  manifests: [{ mediaType: OCI_MANIFEST, digest: DIGEST, size: 5 }],
}

function parse(body: unknown, contentType?: string): Manifest {
  return parseManifest(
    Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
    contentType,
    bounds,
  )
}

function refused(body: unknown, contentType?: string, code = 'MANIFEST_INVALID'): void {
  assert.throws(
    () => parse(body, contentType),
    (error) => error instanceof RegistryError && error.code === code,
    JSON.stringify(body).slice(0, 200),
  )
}

test('an image refers to its config and layers, an index to its children', () => {
  const { kind, references } = parse({ ...image, layers: [layer, layer] })
  assert.equal(kind, 'image')
  assert.deepEqual(
    references.map(({ kind: of, position, target }) => [of, position, target]),
    [
      ['config', 0, 'blob'],
      ['layer', 0, 'blob'],
      ['layer', 1, 'blob'],
    ],
  )
  const parsed = parse(index)
  assert.equal(parsed.kind, 'index')
  assert.deepEqual(parsed.references[0], {
    ...index.manifests[0],
    kind: 'child',
    position: 0,
    target: 'manifest',
    foreign: false,
  })
})

test('an index may list plain blobs, as BuildKit caches do: they are looked up as blobs', () => {
  const cache = { mediaType: 'application/vnd.buildkit.cacheconfig.v0', digest: DIGEST, size: 1 }
  assert.deepEqual(
    parse({ ...index, manifests: [layer, cache] }).references.map(({ target }) => target),
    ['blob', 'blob'],
  )
})

test('foreign layers may be absent; their urls must be http or https', () => {
  const foreign = { ...layer, mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip' }
  assert.equal(parse({ ...image, layers: [foreign] }).references[1]?.foreign, true)
  assert.equal(
    parse({ ...image, layers: [{ ...foreign, urls: ['https://example.com/x'] }] }).references[1]?.foreign,
    true,
  )
  refused({ ...image, layers: [{ ...foreign, urls: ['file:///etc/passwd'] }] })
  refused({ ...image, layers: [{ ...layer, urls: ['gopher://x'] }] })
})

test('what real builders push is accepted: nested and empty indexes, no layers, null lists, unknown fields', () => {
  assert.equal(parse({ ...index, manifests: [] }).references.length, 0)
  assert.equal(parse({ ...index, manifests: null }).references.length, 0)
  assert.equal(
    parse({ ...index, manifests: [{ mediaType: OCI_INDEX, digest: DIGEST, size: 1 }] }).references[0]?.target,
    'manifest',
  )
  assert.equal(parse({ ...image, layers: [] }).references.length, 1)
  assert.equal(parse({ ...image, layers: null, 'org.example.unknown': { deep: [1] } }).references.length, 1)
  assert.equal(
    parse({ ...image, config: { ...config, data: 'e30=', annotations: { a: 'b' } } }).references[0]?.size,
    2,
  )
})

test('the type comes from the body, else from the header, and the two must agree', () => {
  const { mediaType: _, ...bare } = image
  assert.equal(parse(bare, OCI_MANIFEST).mediaType, OCI_MANIFEST)
  assert.equal(parse(bare, `${DOCKER_MANIFEST}; charset=utf-8`).mediaType, DOCKER_MANIFEST)
  assert.equal(parse(image).mediaType, OCI_MANIFEST)
  assert.equal(parse({ ...index, mediaType: DOCKER_LIST }, DOCKER_LIST).kind, 'index')
  refused(bare)
  refused(image, OCI_INDEX)
  refused(image, 'application/json')
  refused({ ...image, mediaType: 'application/json' }, 'application/json')
  refused({ ...image, mediaType: 7 })
})

test('I1: a body that is both image and index, or contradicts its type, is refused', () => {
  refused({ ...image, manifests: [] })
  refused({ ...image, manifests: null })
  refused({ ...index, layers: [] })
  refused({ ...index, config })
  refused({ ...index, fsLayers: [] })
  for (const type of [
    `${OCI_MANIFEST}\t`,
    ` ${OCI_INDEX}`,
    `${OCI_MANIFEST} ,${OCI_INDEX}`,
    `${OCI_MANIFEST}\u00a0`,
    '',
    ';',
    'x',
  ]) {
    const read = () => parse({ ...image, mediaType: undefined, manifests: undefined }, type)
    try {
      assert.equal(read().mediaType, OCI_MANIFEST, 'white space around a type is no other type')
    } catch (error) {
      assert.ok(error instanceof RegistryError && error.code === 'MANIFEST_INVALID')
    }
  }
})

test('I2: keys that another reader would take for known ones are refused', () => {
  refused({ ...image, Layers: [] })
  refused({ ...image, LAYERS: [layer] })
  refused({ ...image, 'layer\u017f': [] })
  refused({ ...index, Manifests: [] })
  refused({ ...image, layers: [{ ...layer, Digest: DIGEST }] })
  refused({ ...image, config: { ...config, SIZE: 1 } })
  refused('{"schemaVersion":2,"schemaVersion":2}')
  refused('\ufeff{}')
  refused('[]')
  refused('null')
  refused('7')
})

test('I3: descriptors need a type, a digest of a known algorithm, and an integer size', () => {
  for (const size of [-1, 1.5, '3', null, undefined, 2 ** 53, Number.MAX_VALUE])
    refused({ ...image, layers: [{ ...layer, size }] })
  refused(
    '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"a/b","digest":"' +
      DIGEST +
      '","size":9007199254740993},"layers":[]}',
  )
  for (const digest of ['sha256:x', 'latest', `SHA256:${'0'.repeat(64)}`, 'sha256:../../../etc/passwd']) {
    refused({ ...image, layers: [{ ...layer, digest }] }, undefined, 'DIGEST_INVALID')
  }
  for (const mediaType of [undefined, '', 'x', 'a/b c', 'a/b\u0000', 7])
    refused({ ...image, layers: [{ ...layer, mediaType }] })
  refused({ ...image, layers: [null] })
  refused({ ...image, layers: 'x' })
  refused({ ...image, config: [] })
  refused({ ...image, schemaVersion: 1 })
})

test('D4: more descriptors than the limit are refused', () => {
  const layers = Array.from({ length: bounds.descriptorsMax + 1 }, () => layer)
  refused({ ...image, layers })
  assert.equal(parse({ ...image, layers: layers.slice(1) }).references.length, bounds.descriptorsMax + 1)
})

test("referrers show their artifactType, else their config's type, and none for an index", () => {
  const subject = { mediaType: OCI_MANIFEST, digest: OTHER, size: 9 }
  assert.equal(parse({ ...image, subject }).artifactType, config.mediaType)
  assert.equal(parse({ ...image, subject, artifactType: 'a/b' }).artifactType, 'a/b')
  assert.equal(parse({ ...index, subject }).artifactType, undefined)
  assert.equal(parse({ ...index, subject }).subject?.digest, OTHER)
  refused({ ...image, artifactType: 'no type' })
  refused({ ...image, subject: { digest: OTHER } })
  refused({ ...image, annotations: { a: 1 } })
  refused({ ...image, annotations: [] })
})

/** How Go's encoding/json would read it: case does not matter, the last key wins. */
function readLikeGo(text: string): string[] {
  const get = (object: unknown, name: string): unknown => {
    if (typeof object !== 'object' || object === null) return undefined
    return Object.entries(object).findLast(([key]) => key.toLowerCase() === name.toLowerCase())?.[1]
  }
  const value: unknown = JSON.parse(text)
  const list = (name: string) => (Array.isArray(get(value, name)) ? (get(value, name) as unknown[]) : [])
  return [get(value, 'config'), ...list('layers'), ...list('manifests')]
    .map((one) => get(one, 'digest'))
    .filter((digest) => typeof digest === 'string')
}

test('I2: a case-insensitive reader finds the same references, or the manifest is refused', () => {
  const key = fc.constantFrom(
    'config',
    'Config',
    'layers',
    'LAYERS',
    'manifests',
    'Manifests',
    'mediaType',
    'x',
  )
  const value = fc.constantFrom<unknown>(
    config,
    layer,
    [layer],
    [config, layer],
    [],
    null,
    OCI_MANIFEST,
    { Digest: DIGEST },
    'x',
  )
  fc.assert(
    fc.property(fc.array(fc.tuple(key, value), { maxLength: 5 }), (entries) => {
      const body = `{"schemaVersion":2${entries.map(([name, of]) => `,${JSON.stringify(name)}:${JSON.stringify(of)}`).join('')}}`
      let parsed: Manifest
      try {
        parsed = parse(body, entries.some(([name]) => name === 'manifests') ? OCI_INDEX : OCI_MANIFEST)
      } catch (thrown) {
        assert.ok(thrown instanceof RegistryError)
        return
      }
      assert.deepEqual(
        parsed.references.map(({ digest }) => digest as string).sort(),
        readLikeGo(body).sort(),
      )
    }),
    { numRuns: 3_000 },
  )
})
