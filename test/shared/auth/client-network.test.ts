import assert from 'node:assert/strict'
import { test } from 'node:test'
import { networkOf } from '#shared/auth/client-network.ts'

test('an IPv4 address, mapped or not, is its own network; an IPv6 address counts as its /64', () => {
  assert.equal(networkOf('192.0.2.7'), '192.0.2.7')
  assert.equal(networkOf('::ffff:192.0.2.7'), '192.0.2.7')
  assert.equal(networkOf('2001:db8:1:2:3:4:5:6'), networkOf('2001:db8:1:2::'))
  assert.notEqual(networkOf('2001:db8:1:2::1'), networkOf('2001:db8:1:3::1'))
  assert.equal(networkOf('fe80::1%eth0'), networkOf('fe80::2'))
  assert.equal(networkOf('x'.repeat(1_000)).length, 64)
})
