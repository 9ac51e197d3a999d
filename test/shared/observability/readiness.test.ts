import assert from 'node:assert/strict'
import { test } from 'node:test'
import { watchReadiness } from '#shared/observability/readiness.ts'
import { eventually } from '../../support/eventually.ts'

test('readiness is the result of the last round: asking starts no check', async () => {
  let checks = 0
  await using watch = await watchReadiness({ checks: { store: async () => ++checks }, everyMs: 60_000 })
  const before = checks
  for (let asked = 0; asked < 1_000; asked++) assert.deepEqual(watch.now(), { ready: true, reasons: [] })
  assert.equal(checks, before)
})

test('a failing part is named, and its recovery is noticed', async () => {
  let away = true
  await using watch = await watchReadiness({
    checks: {
      database: async () => {},
      store: () => (away ? Promise.reject(new Error('gone')) : Promise.resolve()),
    },
    everyMs: 5,
  })
  assert.deepEqual(watch.now(), { ready: false, reasons: ['store: gone'] })
  away = false
  await eventually('readiness', () => watch.now().ready)
})

test('a check that hangs is not ready, is not started again, and affects no other part', async () => {
  let started = 0
  let rounds = 0
  await using watch = await watchReadiness({
    checks: {
      stuck: () => {
        started++
        return new Promise(() => {})
      },
      fine: async () => ++rounds,
    },
    everyMs: 1,
    checkMsMax: 10,
  })
  await eventually('some rounds', () => rounds > 5)
  assert.deepEqual(watch.now(), { ready: false, reasons: ['stuck: no answer within 0.01 s'] })
  assert.equal(started, 1)
})

test('a result that is too old is not ready', async () => {
  let now = 0
  await using watch = await watchReadiness({ checks: {}, everyMs: 3_600_000, nowMs: () => now })
  assert.equal(watch.now().ready, true)
  await new Promise((resolve) => setImmediate(resolve))
  now = 31_000
  assert.deepEqual(watch.now(), { ready: false, reasons: ['the last check is too old'] })
})

test('an added part is checked from then on; its first result may come from an earlier check', async () => {
  let checks = 0
  let away = false
  await using watch = await watchReadiness({ checks: { database: async () => {} }, everyMs: 5 })
  assert.deepEqual(watch.now(), { ready: true, reasons: [] })
  await using slow = await watchReadiness({ checks: {}, everyMs: 60_000 })
  const check = async () => {
    checks++
    if (away) throw new Error('gone')
  }
  await slow.add('store', { check, first: () => Promise.reject(new Error('away at the start')) })
  assert.deepEqual(slow.now(), { ready: false, reasons: ['store: away at the start'] })
  assert.equal(checks, 0, 'the start does not look twice')
  await watch.add('store', { check })
  assert.equal(watch.now().ready, true)
  away = true
  await eventually('the part to be missed', () => watch.now().reasons.includes('store: gone'))
  away = false
  await eventually('the part to be back', () => watch.now().ready)
})
