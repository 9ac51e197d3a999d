import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hasEntityTag, parseEntityTags, rangeStillValid } from '#shared/oci/conditional.ts'
import { parseDigest } from '#shared/oci/digest.ts'

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
  for (const weak of [`W/"${digest}"`, `w/"${digest}"`, `"x", "${digest}"`, '*', `"${digest}`])
    assert.equal(rangeStillValid(weak, digest), false, `${weak} is no strong tag (RFC 9110, 13.1.5)`)
  assert.equal(rangeStillValid('"other"', digest), false)
  assert.equal(rangeStillValid('Wed, 21 Oct 2015 07:28:00 GMT', digest), false)
})

test('tags are listed without their clothes', () => {
  assert.deepEqual(parseEntityTags(' "a" , W/"b", c ,, *'), ['a', 'b', 'c', '*'])
})
