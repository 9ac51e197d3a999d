import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseReference, parseRepositoryName, parseTag, shardOf } from '#shared/oci/reference.ts'

test('repository names follow the grammar of the distribution-spec', () => {
  const right = [
    'a',
    '0',
    'a/b',
    'a.b',
    'a_b',
    'a__b',
    'a-b',
    'a---b',
    'library/hello-world',
    'a/manifests/b',
    'x'.repeat(255),
  ]
  const wrong = [
    '',
    '/',
    'a/',
    '/a',
    'a//b',
    'A',
    'a/B',
    '.a',
    'a.',
    'a..b',
    'a___b',
    '-a',
    'a-',
    'a_.b',
    'a/../b',
    'a%2fb',
    'a b',
    'é',
    'a\0',
    'a\n',
    'x'.repeat(256),
    '_catalog',
    'a/_b',
    'a:b',
    'a@b',
    'a\\b',
    'a;b',
  ]
  for (const name of right) assert.equal(parseRepositoryName(name), name, name)
  for (const name of wrong) assert.equal(parseRepositoryName(name), undefined, JSON.stringify(name))
})

test('tags follow the grammar of the distribution-spec', () => {
  for (const tag of ['latest', '_', 'V1.0', 'a-b', 'x'.repeat(128), `sha256-${'a'.repeat(64)}`])
    assert.equal(parseTag(tag), tag)
  for (const tag of ['', '.a', '-a', 'a b', 'a:b', 'é', 'a\n', 'x'.repeat(129), 'a/b'])
    assert.equal(parseTag(tag), undefined)
})

test('a reference with a colon is a digest or a bad digest, never an unknown tag', () => {
  assert.deepEqual(parseReference('latest'), { kind: 'tag', tag: 'latest' })
  assert.deepEqual(parseReference('sha256:baddigeststring'), { kind: 'invalid', code: 'DIGEST_INVALID' })
  assert.deepEqual(parseReference('.bad'), { kind: 'invalid', code: 'TAG_INVALID' })
  const digest = `sha256:${'0'.repeat(64)}`
  assert.deepEqual(parseReference(digest), { kind: 'digest', digest })
})

test('D9: names that invite backtracking are checked by length and one linear pass', () => {
  // Every pattern here has one way to match: a longest name of separators is refused without trying combinations.
  for (const text of [
    `${'a-'.repeat(127)}!`,
    `${'a__'.repeat(84)}/`,
    `${'-'.repeat(255)}`,
    'a.'.repeat(32_768),
  ]) {
    assert.equal(parseRepositoryName(text), undefined)
  }
})

test('R7: the shard of a repository is the first byte of its hash & 7', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z0-9]{1,20}(\/[a-z0-9]{1,20}){0,3}$/), (text) => {
      const name = parseRepositoryName(text)
      assert.ok(name)
      assert.equal(shardOf(name), (createHash('sha256').update(text).digest()[0] ?? 0) & 7)
    }),
  )
})
