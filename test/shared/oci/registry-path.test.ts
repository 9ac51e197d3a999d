import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { matchRegistryPath, TARGET_LENGTH_MAX } from '#shared/oci/registry-path.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`

test('every route is matched, with names read from the right', () => {
  const cases: [string, object][] = [
    ['/v2/', { route: 'base', query: '' }],
    ['/v2', { route: 'base', query: '' }],
    ['/v2/?x=1', { route: 'base', query: 'x=1' }],
    ['/v2/_catalog?n=3', { route: 'catalog', query: 'n=3' }],
    ['/v2/a/tags/list', { route: 'tags', name: 'a', query: '' }],
    ['/v2/a/b/manifests/latest', { route: 'manifest', name: 'a/b', reference: 'latest', query: '' }],
    [
      '/v2/a/manifests/b/manifests/latest',
      { route: 'manifest', name: 'a/manifests/b', reference: 'latest', query: '' },
    ],
    [`/v2/a/blobs/${DIGEST}?ns=x`, { route: 'blob', name: 'a', digest: DIGEST, query: 'ns=x' }],
    [`/v2/a/blobs/${DIGEST.replace(':', '%3A')}`, { route: 'blob', name: 'a', digest: DIGEST, query: '' }],
    [
      `/v2/a/referrers/${DIGEST.replace(':', '%3a')}`,
      { route: 'referrers', name: 'a', digest: DIGEST, query: '' },
    ],
    ['/v2/a/blobs/uploads', { route: 'uploads', name: 'a', query: '' }],
    ['/v2/a/blobs/uploads/?mount=x', { route: 'uploads', name: 'a', query: 'mount=x' }],
    ['/v2/a/blobs/uploads/eu.12-3', { route: 'upload', name: 'a', id: 'eu.12-3', query: '' }],
    ['/v2/blobs/uploads/blobs/uploads/', { route: 'uploads', name: 'blobs/uploads', query: '' }],
    ['/v2/tags/list/tags/list', { route: 'tags', name: 'tags/list', query: '' }],
  ]
  for (const [target, expected] of cases) assert.deepEqual(matchRegistryPath(target), expected, target)
})

test('I7: escapes, dot segments and ambiguous text never reach a name', () => {
  const hostile = [
    '/v2/..%2f..%2fetc/manifests/x',
    '/v2/a%2fb/manifests/x',
    '/v2/a/../b/manifests/x',
    '/v2//manifests/x',
    '/v2/a//b/tags/list',
    '/v2/%2e%2e/tags/list',
    '/v2/a%00/tags/list',
    '/v2/a\\b/tags/list',
    '/v2/a;b/tags/list',
    '/v2/A/tags/list',
    '/v2/./tags/list',
    '/v2/\u00e9/tags/list',
    '/v2/_catalog/tags/list',
    '/v2/%C0%AE/tags/list',
  ]
  for (const target of hostile)
    assert.deepEqual(matchRegistryPath(target), { route: 'invalid', reason: 'name' }, target)
  for (const target of [
    '/v2/x',
    '/v2/a/manifests/',
    '/v1/a/tags/list',
    '//v2/',
    '/v2/a/unknown/x',
    'http://h/v2/',
    '*',
    '',
    '/v2/a/blobs/uploads/a%2fb',
    '/v2/a/blobs/uploads/..%2f',
  ]) {
    assert.deepEqual(matchRegistryPath(target), { route: 'unknown' }, target)
  }
})

test('a reference that no grammar allows still belongs to its route, which reports the error', () => {
  const match = matchRegistryPath('/v2/a/manifests/%00')
  assert.equal(match.route, 'manifest')
})

test('a target longer than any request needs is refused before anything is matched', () => {
  const target = `/v2/${'a'.repeat(TARGET_LENGTH_MAX)}/tags/list`
  assert.deepEqual(matchRegistryPath(target), { route: 'invalid', reason: 'target-too-long' })
})

test('fuzz: no target throws, and what matches has parsed names and no percent sign', () => {
  const piece = fc.constantFrom(
    '/',
    '/v2/',
    'a',
    'manifests',
    'blobs',
    'uploads',
    'tags',
    'list',
    '%',
    '%3A',
    '%2F',
    '..',
    '?',
    '\0',
    ':',
    DIGEST,
    '\\',
    '//',
    'é',
    '-',
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 14 }), fc.string(), (pieces, tail) => {
      for (const target of [pieces.join(''), `/v2/${pieces.join('')}`, tail, `/v2/${tail}`]) {
        const match = matchRegistryPath(target)
        if ('name' in match) assert.match(match.name, /^[a-z0-9]+(?:[._/-]+[a-z0-9]+)*$/)
        if (match.route === 'upload') assert.match(match.id, /^[\w.=-]{1,128}$/)
      }
    }),
    { numRuns: 2_000 },
  )
})
