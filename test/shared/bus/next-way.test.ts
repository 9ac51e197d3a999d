import assert from 'node:assert/strict'
import { test } from 'node:test'
import { firstWay, isQuiet, nextWay, type Seen, type WayState } from '#shared/bus/next-way.ts'

const limits = { quietMs: 50, retryBusMs: 300 }
const quiet: Seen = { nowMs: 0, hasBus: true, brought: 0, underWay: 0, lag: 5 }

const [started] = looks([{}], firstWay(quiet)) as [WayState]

/** Runs consecutive checks and returns the resulting states. */
function looks(seen: readonly Partial<Seen>[], from: WayState = started): WayState[] {
  const states: WayState[] = []
  for (const one of seen) states.push(nextWay(states.at(-1) ?? from, { ...quiet, ...one }, limits).state)
  return states
}

test('a quiet bus with pending events is renewed twice, then the log is read, then the bus is tried again', () => {
  const states = looks([{}, {}, { nowMs: 100 }, { nowMs: 400 }, { nowMs: 401 }])
  assert.deepEqual(
    states.map(({ way }) => way),
    ['bus', 'bus', 'log', 'log', 'bus'],
  )
  assert.deepEqual(
    states.map(({ rebuilds }) => rebuilds),
    [1, 2, 2, 2, 2],
  )
  assert.equal(states.at(-1)?.strikes, 0, 'it gets its two renewals again')
})

test('one delivery, one batch being handled or no lag ends the strikes', () => {
  for (const relief of [{ brought: 1 }, { underWay: 1 }, { lag: 0 }]) {
    const [, , after, again] = looks([{}, {}, relief, relief.brought === undefined ? {} : { brought: 1 }])
    assert.equal(after?.strikes, 0)
    assert.equal(again?.way, 'bus', JSON.stringify(relief))
    assert.equal(again?.strikes, 1)
  }
})

test('the first check never finds the bus quiet', () => {
  assert.equal(isQuiet(firstWay(quiet), quiet), false)
  assert.equal(started.strikes, 0)
})

test('without a bus the log is always read', () => {
  const alone = { hasBus: false, nowMs: 1_000_000 }
  const [state] = looks([alone], firstWay({ nowMs: 0, hasBus: false }))
  assert.equal(state?.way, 'log')
})

test('the lag is requested only when the bus is quiet', () => {
  const state = started
  assert.equal(isQuiet(state, { brought: 0, underWay: 0 }), true)
  assert.equal(isQuiet(state, { brought: 1, underWay: 0 }), false)
  assert.equal(isQuiet({ ...state, way: 'log' }, { brought: 0, underWay: 0 }), false)
})
