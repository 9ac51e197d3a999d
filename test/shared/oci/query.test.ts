import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { RegistryError } from '#shared/errors.ts'
import { parseQuery } from '#shared/oci/query.ts'

test('values are decoded; get returns the last one, getAll all of them', () => {
  const query = parseQuery('tag=a&tag=b&from=team%2Fapp&empty=&bare&&mount=sha256:0')
  assert.equal(query.get('tag'), 'b')
  assert.deepEqual(query.getAll('tag'), ['a', 'b'])
  assert.equal(query.get('from'), 'team/app')
  assert.equal(query.get('empty'), '')
  assert.equal(query.get('bare'), '')
  assert.equal(query.get('absent'), undefined)
})

test('a plus sign stays a plus sign: media types survive', () => {
  assert.equal(
    parseQuery('artifactType=application/vnd.x+json').get('artifactType'),
    'application/vnd.x+json',
  )
})

test('broken encoding and too many parameters are clear errors', () => {
  assert.throws(
    () => parseQuery('a=%ZZ'),
    (error) => error instanceof RegistryError && error.code === 'REQUEST_INVALID',
  )
  assert.throws(() => parseQuery('a=%C3%28'), RegistryError)
  assert.throws(
    () => parseQuery('a&'.repeat(65)),
    (error) => error instanceof RegistryError && error.status === 414,
  )
})

test('fuzz: a query is parsed or refused with a RegistryError', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 300 }), (text) => {
      try {
        parseQuery(text)
      } catch (thrown) {
        assert.ok(thrown instanceof RegistryError)
      }
    }),
  )
})
