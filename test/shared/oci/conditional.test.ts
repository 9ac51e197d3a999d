import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hasEntityTag, mayReplace, parseEntityTags, rangeStillValid } from '#shared/oci/conditional.ts'
import { type Digest, parseDigest } from '#shared/oci/digest.ts'

const digest = parseDigest(`sha256:${'a'.repeat(64)}`)
assert.ok(digest)

test('a digest matches quoted, bare, weak, in a list, and `*`', () => {
  for (const header of [`"${digest}"`, digest, `W/"${digest}"`, `"x", "${digest}"`, '*'])
    assert.equal(hasEntityTag(header, digest), true, header)
  for (const header of [undefined, '', '"x"', `"${digest}x"`, `"${'a'.repeat(9_000)}"`])
    assert.equal(hasEntityTag(header, digest), false)
})

test('a range is valid without If-Range, or if it names exactly this content', () => {
  assert.equal(rangeStillValid(undefined, digest), true)
  assert.equal(rangeStillValid(`"${digest}"`, digest), true)
  for (const weak of [`W/"${digest}"`, `w/"${digest}"`, `"x", "${digest}"`, '*', `"${digest}`])
    assert.equal(rangeStillValid(weak, digest), false, `${weak} is no strong tag (RFC 9110, 13.1.5)`)
  assert.equal(rangeStillValid('"other"', digest), false)
  assert.equal(rangeStillValid('Wed, 21 Oct 2015 07:28:00 GMT', digest), false)
})

test('tags are listed without quotes and W/', () => {
  assert.deepEqual(parseEntityTags(' "a" , W/"b", c ,, *'), ['a', 'b', 'c', '*'])
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

test('a read compares only the first hundred of thousands of tags, a write all of them', () => {
  assert.equal(hasEntityTag(`${'"a",'.repeat(99)}"${digest}"`, digest), true)
  assert.equal(hasEntityTag(`${'"a",'.repeat(100)}"${digest}"`, digest), false)
  assert.equal(parseEntityTags('"a",'.repeat(2_000)).length, 2_000)
})
