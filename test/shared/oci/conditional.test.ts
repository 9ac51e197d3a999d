import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  hasEntityTag,
  mayReplace,
  namesTooManyEntityTags,
  parseEntityTags,
  rangeStillValid,
} from '#shared/oci/conditional.ts'
import { type Digest, parseDigest } from '#shared/oci/digest.ts'

const digest = parseDigest(`sha256:${'a'.repeat(64)}`)
assert.ok(digest)

test('a digest matches quoted, bare, weak, in a list, and by the star', () => {
  for (const header of [`"${digest}"`, digest, `W/"${digest}"`, `"x", "${digest}"`, '*'])
    assert.equal(hasEntityTag(header, digest), true, header)
  for (const header of [undefined, '', '"x"', `"${digest}x"`, `"${'a'.repeat(9_000)}"`])
    assert.equal(hasEntityTag(header, digest), false)
})

test('a range holds when nothing is asked or the content is the one that was asked for', () => {
  assert.equal(rangeStillValid(undefined, digest), true)
  assert.equal(rangeStillValid(`"${digest}"`, digest), true)
  assert.equal(rangeStillValid('"other"', digest), false)
  assert.equal(rangeStillValid('Wed, 21 Oct 2015 07:28:00 GMT', digest), false)
})

test('tags are listed without their clothes', () => {
  assert.deepEqual(parseEntityTags(' "a" , W/"b", c ,, *'), ['a', 'b', 'c', '*'])
})

test('of thousands of tags the first hundred count', () => {
  assert.equal(parseEntityTags('"a",'.repeat(2_000)).length, 100)
  assert.equal(parseEntityTags(','.repeat(8_000)).length, 0)
  assert.equal(parseEntityTags(`${'"a",'.repeat(99)}"b"`).at(-1), 'b')
})

test('a header with more entity tags than are read is recognised: a write may not ignore some of them', () => {
  assert.equal(namesTooManyEntityTags(undefined), false)
  assert.equal(namesTooManyEntityTags('"a"'), false)
  assert.equal(namesTooManyEntityTags(Array.from({ length: 100 }, () => '"a"').join(',')), false)
  assert.equal(namesTooManyEntityTags(Array.from({ length: 101 }, () => '"a"').join(',')), true)
  assert.equal(namesTooManyEntityTags(`"${'a'.repeat(8192)}"`), true)
})

test('a write may replace what its conditions allow', () => {
  const [one, two] = [`sha256:${'1'.repeat(64)}` as Digest, `sha256:${'2'.repeat(64)}` as Digest]
  for (const [there, conditions, allowed] of [
    [one, {}, true],
    [undefined, {}, true],
    [undefined, { ifNoneMatch: ['*'] }, true],
    [one, { ifNoneMatch: ['*'] }, false],
    [one, { ifNoneMatch: [two, one] }, false],
    [one, { ifNoneMatch: [two] }, true],
    [undefined, { ifNoneMatch: [one] }, true],
    [one, { ifMatch: ['*'] }, true],
    [undefined, { ifMatch: ['*'] }, false],
    [one, { ifMatch: [two, one] }, true],
    [one, { ifMatch: [two] }, false],
    [one, { ifMatch: [] }, false],
    [undefined, { ifMatch: [one] }, false],
    [one, { ifMatch: [one], ifNoneMatch: [one] }, false],
  ] as const) {
    assert.equal(mayReplace(there, conditions), allowed, JSON.stringify([there, conditions]))
  }
})
