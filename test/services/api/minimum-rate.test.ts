import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRateGuard } from '../../../services/api/minimum-rate.ts'

function guarded(t: { after(fn: () => void): void }, bytesPerSecondMin = 100) {
  const clock = { nowMs: 0 }
  const guard = createRateGuard({
    bytesPerSecondMin,
    windowMs: 10_000,
    nowMs: () => clock.nowMs,
    tickMs: 1_000_000,
  })
  t.after(() => guard[Symbol.dispose]())
  const pass = (ms: number) => {
    clock.nowMs += ms
    guard.tick()
  }
  return { guard, pass }
}

test('D3: a stream that stays below the rate for a whole window is cut, once', (t) => {
  const { guard, pass } = guarded(t)
  let cut = 0
  const watch = guard.watch(() => cut++)
  watch.progress(999)
  pass(9_999)
  assert.equal(cut, 0, 'not before the window is over')
  pass(1)
  assert.equal(cut, 1)
  pass(100_000)
  assert.equal(cut, 1)
})

test('a slow stream at the rate lives for ever, whatever its total time', (t) => {
  const { guard, pass } = guarded(t)
  let cut = 0
  const watch = guard.watch(() => cut++)
  for (let window = 0; window < 1_000; window++) {
    watch.progress(1_000)
    pass(10_000)
  }
  assert.equal(cut, 0)
})

test('a stream that ended is not watched, and a rate of zero cuts nobody', (t) => {
  const { guard, pass } = guarded(t)
  let cut = 0
  guard.watch(() => cut++)[Symbol.dispose]()
  pass(100_000)
  const zero = guarded(t, 0)
  zero.guard.watch(() => cut++)
  zero.pass(100_000)
  assert.equal(cut, 0)
})
