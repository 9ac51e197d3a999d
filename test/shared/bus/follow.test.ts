// Follows a log through an unreliable bus: rules R8 and R9, and the watchdog.
// tests: shared/bus/in-order.ts, shared/registry/log-pages.ts

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { type FollowOptions, followLog } from '#shared/bus/follow.ts'
import { createLogBus } from '#shared/bus/log-bus.ts'
import { trimEvents } from '#shared/db/event-log.ts'
import type { Region } from '#shared/region.ts'
import { ownLogPages } from '#shared/registry/log-pages.ts'
import { eventually } from '../../support/eventually.ts'
import { createReader } from '../../support/follower.ts'
import { fillLog } from '../../support/log-writer.ts'
import { testRegion } from '../../support/region.ts'
import { createUnrulyBus, type Unruly } from '../../support/unruly-bus.ts'

/** Reproducible randomness. The seed is printed. */
function seeded(t: TestContext): () => number {
  let state = Math.floor(Math.random() * 2 ** 31)
  t.diagnostic(`seed ${state}`)
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    return state / 2 ** 31
  }
}

function following(region: Region, options: Partial<FollowOptions> = {}) {
  const reader = createReader()
  const ways: string[] = []
  const pages = ownLogPages(region)
  const log = createLogBus({ pages, pollMs: 10 })
  const follow = followLog({
    group: 'test',
    bus: undefined,
    log,
    pages,
    position: async (shard) => ({ shard, epoch: 1, seq: 0 }),
    handle: async (batch) => void reader.batches.push(batch),
    onGone: () => Promise.reject(new Error('nothing is gone')),
    onProblem: (problem) => reader.problems.push(problem),
    onWay: (way) => ways.push(way),
    quietMs: 20,
    retryBusMs: 60_000,
    ...options,
  })
  return { reader, follow, ways, log, pages }
}

function unruly(region: Region, how: Unruly) {
  return createUnrulyBus(createLogBus({ pages: ownLogPages(region), pollMs: 10 }), how)
}

test('R8: from a bus that drops, repeats and reorders, every event arrives once, in order', async (t) => {
  const { region } = await testRegion(t)
  const bus = unruly(region, { drop: 0.05, repeat: 0.2, shuffle: true, random: seeded(t) })
  const { reader, follow } = following(region, { bus, quietMs: 60_000 })
  for (let round = 0; round < 10; round++) await fillLog(region, { count: 400 })
  // If the very last events are dropped, no later event reveals the gap.
  await fillLog(region, { count: 80 })
  await eventually('nearly all', () => reader.count() > 3_900)
  await follow[Symbol.asyncDispose]()
  const ids = reader.batches.flatMap(({ events }) => events.map(({ id }) => id))
  assert.equal(new Set(ids).size, ids.length, 'each once')
  reader.assertWhole(ids.length)
})

test('an event that the bus abridged is read complete from the log, in its order', async (t) => {
  const { region } = await testRegion(t)
  const whole = ownLogPages(region)
  const bus = createLogBus({
    pollMs: 10,
    pages: {
      ...whole,
      async page(after) {
        const { events, gone } = await whole.page(after)
        const abridged = events.map((event, index) =>
          index % 3 === 0 ? { ...event, data: { abridged: true } } : event,
        )
        return { events: abridged, gone }
      },
    },
  })
  await fillLog(region, { count: 80 })
  const { reader, follow } = following(region, { bus, quietMs: 60_000 })
  await eventually('all', () => reader.count() === 80)
  await follow[Symbol.asyncDispose]()
  reader.assertWhole(80)
  const events = reader.batches.flatMap((batch) => batch.events)
  assert.ok(events.every(({ data }) => data.abridged === undefined && data.actor !== undefined))
})

test('R9: a quiet bus is renewed twice, then the log is read, then the bus is tried again', async (t) => {
  const { region } = await testRegion(t)
  const bus = unruly(region, { random: () => 0.5 })
  bus.quiet = true
  const { reader, follow, ways } = following(region, { bus, quietMs: 50, retryBusMs: 300 })
  // A bus with nothing to deliver is not quiet.
  await new Promise((resolve) => setTimeout(resolve, 400))
  assert.equal(follow.rebuilds, 0)
  assert.equal(follow.way, 'bus')
  await fillLog(region, { count: 80 })
  await eventually('the log to be read', () => reader.count() === 80)
  assert.equal(follow.rebuilds, 2)
  assert.deepEqual(ways, ['log'])
  bus.quiet = false
  await eventually('the bus to be tried again', () => follow.way === 'bus')
  await fillLog(region, { count: 80 })
  await eventually('what came since', () => reader.count() === 160)
  await follow[Symbol.asyncDispose]()
  reader.assertWhole(160)
  assert.deepEqual(ways, ['log', 'bus'])
})

test('a slow handler does not make the bus count as quiet', async (t) => {
  const { region } = await testRegion(t)
  const bus = unruly(region, { random: () => 0.5 })
  const gate = Promise.withResolvers<void>()
  const { follow, reader } = following(region, {
    bus,
    quietMs: 200,
    async handle(batch) {
      await gate.promise
      reader.batches.push(batch)
    },
  })
  await fillLog(region, { count: 80 })
  await new Promise((resolve) => setTimeout(resolve, 1_000))
  assert.equal(follow.rebuilds, 0)
  gate.resolve()
  await eventually('all', () => reader.count() === 80)
  await follow[Symbol.asyncDispose]()
})

test('a handler that fails gets the same events again, from its own recorded position', async (t) => {
  const { region } = await testRegion(t)
  let failures = 0
  const recorded = new Map<number, number>()
  const { reader, follow } = following(region, {
    position: async (shard) => ({ shard, epoch: 1, seq: recorded.get(shard) ?? 0 }),
    async handle(batch) {
      // The first failure still records the events: a connection that was lost at commit.
      const fails = failures++ < 5
      if (!fails || failures === 1) {
        reader.batches.push(batch)
        recorded.set(batch.shard, Number(batch.events.at(-1)?.sequence))
      }
      if (fails) throw new Error('lost')
    },
  })
  await fillLog(region, { count: 160 })
  await eventually('all', () => reader.count() === 160)
  await follow[Symbol.asyncDispose]()
  const ids = reader.batches.flatMap(({ events }) => events.map(({ id }) => id))
  assert.equal(ids.length, 160, 'each once')
  reader.assertWhole(160)
})

test('a reader whose next events were trimmed learns where the log begins, and decides', async (t) => {
  const { region } = await testRegion(t)
  await fillLog(region, { count: 160 })
  await trimEvents(region.db, { retentionSeconds: 0, readerSeconds: 60, limit: 80 })
  await fillLog(region, { count: 8 })
  const bus = unruly(region, { random: () => 0.5 })
  const told: number[] = []
  const { reader, follow } = following(region, {
    bus,
    async onGone(oldest) {
      told.push(oldest.shard)
      return oldest
    },
  })
  await eventually('what is left', () => reader.count() === 88)
  await follow[Symbol.asyncDispose]()
  assert.deepEqual(told.toSorted(), [0, 1, 2, 3, 4, 5, 6, 7])
})
