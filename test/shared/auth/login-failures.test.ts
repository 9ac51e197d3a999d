import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLoginFailures } from '#shared/auth/login-failures.ts'

function setUp() {
  const clock = { nowMs: 5_000 }
  const failures = createLoginFailures(() => clock.nowMs)
  const waits = (times: number, who = 'a') =>
    Array.from({ length: times }, () => {
      failures.charge(who)
      return failures.waitMs(who)
    })
  return { clock, failures, waits }
}

test('ten failures are free, then the wait doubles up to half a minute', () => {
  const { waits, failures } = setUp()
  assert.deepEqual(waits(10), Array(10).fill(0))
  assert.deepEqual(waits(8), [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000])
  assert.equal(failures.waitMs('b'), 0)
})

test('a failure that is taken back costs nothing', () => {
  const { waits, failures } = setUp()
  waits(11)
  failures.takeBack('a')
  assert.equal(failures.waitMs('a'), 0)
  failures.takeBack('nobody')
  assert.equal(failures.waitMs('nobody'), 0)
})

test('one failure is forgotten per minute, and all of them within 16 minutes', () => {
  const { waits, clock } = setUp()
  waits(1_000)
  clock.nowMs += 15 * 60_000
  assert.deepEqual(waits(10).slice(0, 9), Array(9).fill(0))
})
