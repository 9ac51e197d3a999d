import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatUploadRange, parseRange, parseUploadRange } from '#shared/oci/byte-range.ts'

test('single ranges are exact, clamped, suffixed, or cannot be satisfied', () => {
  assert.deepEqual(parseRange('bytes=0-1', 10), [{ start: 0, end: 1 }])
  assert.deepEqual(parseRange('bytes=5-', 10), [{ start: 5, end: 9 }])
  assert.deepEqual(parseRange('bytes=-3', 10), [{ start: 7, end: 9 }])
  assert.deepEqual(parseRange('bytes=-30', 10), [{ start: 0, end: 9 }])
  assert.deepEqual(parseRange('bytes=8-100', 10), [{ start: 8, end: 9 }])
  for (const header of ['bytes=10-', 'bytes=10-20', 'bytes=5-0', 'bytes=-0'])
    assert.equal(parseRange(header, 10), 'unsatisfiable', header)
  assert.equal(parseRange('bytes=0-', 0), 'unsatisfiable')
})

test('a malformed Range is ignored: the whole blob is sent', () => {
  for (const header of [
    undefined,
    '',
    'bytes',
    'bytes=',
    'bytes=-',
    'bytes=a-b',
    'lines=1-2',
    'bytes=1-2-3',
    'bytes=1',
    `bytes=${'9'.repeat(30)}-`,
  ]) {
    assert.equal(parseRange(header, 10), 'whole', String(header))
  }
})

test('D7: many or overlapping ranges do not multiply the response: the whole blob is sent once', () => {
  assert.equal(parseRange(`bytes=${Array(17).fill('0-0').join(',')}`, 100), 'whole')
  assert.equal(parseRange('bytes=0-5,3-9', 100), 'whole')
  assert.equal(parseRange('bytes=0-0,0-0', 100), 'whole')
  assert.equal(parseRange(`bytes=${'0-0,'.repeat(20_000)}`, 100), 'whole')
  assert.deepEqual(parseRange('bytes=5-9, 0-1,200-', 100), [
    { start: 5, end: 9 },
    { start: 0, end: 1 },
  ])
})

test('fuzz: whatever the header, ranges lie within the content and never overlap', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^bytes=[0-9, -]{0,40}$/), fc.nat(1000), (header, size) => {
      const ranges = parseRange(header, size)
      if (typeof ranges === 'string') return
      let total = 0
      for (const { start, end } of ranges) {
        assert.ok(0 <= start && start <= end && end < size)
        total += end - start + 1
      }
      assert.ok(total <= size)
    }),
    { numRuns: 2_000 },
  )
})

test('upload ranges have no unit; additions that some clients send are accepted', () => {
  assert.equal(parseUploadRange(undefined), 'absent')
  assert.deepEqual(parseUploadRange('0-99'), { start: 0, end: 99 })
  assert.deepEqual(parseUploadRange('bytes 5-9/*'), { start: 5, end: 9 })
  assert.deepEqual(parseUploadRange('bytes 5-9/10'), { start: 5, end: 9 })
  for (const header of [
    '',
    '-',
    '0-',
    '-1',
    'a-b',
    '0-1,2-3',
    '0 - 1',
    '0x1-2',
    `0-${'9'.repeat(16)}`,
    '1-2'.repeat(100),
  ]) {
    assert.equal(parseUploadRange(header), 'malformed', header)
  }
})

test('the range of an upload is inclusive, and an empty upload is 0-0', () => {
  assert.equal(formatUploadRange(0), '0-0')
  assert.equal(formatUploadRange(1), '0-0')
  assert.equal(formatUploadRange(1000), '0-999')
})
