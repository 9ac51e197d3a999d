import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { compareVersions, NEVER, type Version, versionTimeMs } from '#shared/convergence/version.ts'

const versions: fc.Arbitrary<Version> = fc.record({
  h: fc.bigInt({ min: 1n, max: 2n ** 62n }),
  origin: fc.constantFrom('eu', 'us', 'ap', 'é'),
})

test('versions are ordered totally: antisymmetric, transitive, and equal only when they are the same', () => {
  fc.assert(
    fc.property(versions, versions, versions, (a, b, c) => {
      assert.ok(Math.sign(compareVersions(a, b)) === -Math.sign(compareVersions(b, a)))
      if (compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0) assert.ok(compareVersions(a, c) <= 0)
      assert.equal(compareVersions(a, b) === 0, a.h === b.h && a.origin === b.origin)
    }),
  )
})

test('never is before every write', () => {
  fc.assert(fc.property(versions, (version) => compareVersions(NEVER, version) < 0))
})

test('the origin decides only between equal times, bytewise', () => {
  assert.ok(compareVersions({ h: 1n, origin: 'us' }, { h: 2n, origin: 'eu' }) < 0)
  assert.ok(compareVersions({ h: 1n, origin: 'eu' }, { h: 1n, origin: 'us' }) < 0)
})

test('a version tells its time in milliseconds', () => {
  assert.equal(versionTimeMs({ h: (1_700_000_000_123n << 16n) | 7n, origin: 'eu' }), 1_700_000_000_123)
})
