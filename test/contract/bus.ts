// The contract of Bus, tested for each implementation: Kafka on a real broker, and the log reader on a real Postgres.
// tests: shared/bus/bus.ts

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Bus } from '#shared/bus/bus.ts'
import { eventually } from '../support/eventually.ts'
import { readWith } from '../support/follower.ts'
import type { FillOptions } from '../support/log-writer.ts'

export interface BusUnderTest {
  readonly bus: Bus
  /** A second connection to the same bus, as another process has. */
  another(): Bus
  /** Adds events to the log and publishes them to the bus. */
  emit(options: FillOptions): Promise<void>
}

const PATIENCE_MS = 30_000

export function busContract(name: string, open: (t: TestContext) => Promise<BusUnderTest>): void {
  test(`${name}: each group gets every event, in shard order, complete and unchanged`, async (t) => {
    const { bus, emit } = await open(t)
    const content = Buffer.from('{"manifest": "ü"}')
    await emit({ count: 100, content })
    const one = readWith(bus, { group: 'one' })
    await eventually('the events published before', () => one.count() === 100, PATIENCE_MS)
    const two = readWith(bus, { group: 'two' })
    await emit({ count: 900, content })
    for (const reader of [one, two]) {
      await eventually('all events', () => reader.count() === 1_000, PATIENCE_MS)
      reader.assertWhole(1_000)
      await reader[Symbol.asyncDispose]()
    }
    const event = one.batches[0]?.events[0]
    assert.ok(event)
    assert.equal(event.specversion, '1.0')
    assert.equal(event.source, '/regions/eu')
    assert.equal(event.data.content, content.toString('base64'))
    assert.equal(event.data.repository, event.partitionkey)
    assert.deepEqual(event.data.actor, { name: 'tester' })
    assert.equal(event.position.split(':').length, 3)
  })

  test(`${name}: a handler that throws gets its batch again; other shards continue`, async (t) => {
    const { bus, emit } = await open(t)
    let failures = 0
    await using reader = readWith(bus, {
      group: 'throwing',
      before({ shard }) {
        if (shard !== 3) return
        if (failures++ < 4) throw failures % 2 === 0 ? new Error('not now') : new TypeError('a bug')
      },
    })
    await emit({ count: 800 })
    await eventually('the other shards', () => reader.count() >= 700, PATIENCE_MS)
    await eventually('the shard that failed', () => reader.count() === 800, PATIENCE_MS)
    reader.assertWhole(800)
    assert.ok(failures >= 5)
    assert.ok(reader.problems.filter((problem) => /not now|a bug/.test(String(problem))).length >= 4)
  })

  test(`${name}: a reader that stops and returns misses nothing`, async (t) => {
    const { emit, another } = await open(t)
    const seen: ReturnType<typeof readWith>['batches'] = []
    for (let round = 1; round <= 3; round++) {
      const bus = another()
      const reader = readWith(bus, {
        group: 'returning',
        from(shard) {
          const last = seen.findLast((batch) => batch.shard === shard)?.events.at(-1)
          return { shard, epoch: 1, seq: last === undefined ? 0 : Number(last.sequence) }
        },
      })
      await emit({ count: 80 })
      const ids = () =>
        new Set([...seen, ...reader.batches].flatMap(({ events }) => events.map(({ id }) => id)))
      await eventually(`round ${round}`, () => ids().size === 80 * round, PATIENCE_MS)
      await reader[Symbol.asyncDispose]()
      await bus[Symbol.asyncDispose]()
      seen.push(...reader.batches)
    }
    const again = seen.flatMap(({ events }) => events).length - 240
    assert.ok(again <= 80, `${again} repeated events`)
  })

  test(`${name}: lag counts the events that a group has not taken, and ends at 0`, async (t) => {
    const { bus, emit } = await open(t)
    const gate = Promise.withResolvers<void>()
    await using reader = readWith(bus, { group: 'lagging', before: () => gate.promise })
    await emit({ count: 240 })
    await eventually(
      'the lag to be known',
      async () => (await bus.lag('lagging').catch(() => 0)) === 240,
      PATIENCE_MS,
    )
    gate.resolve()
    await eventually('no lag', async () => (await bus.lag('lagging')) === 0, PATIENCE_MS)
    assert.equal(reader.count(), 240)
  })

  test(`${name}: events that exceed the limits of a batch arrive, together or alone`, async (t) => {
    const { bus, emit } = await open(t)
    await using reader = readWith(bus, { group: 'large' })
    // 350 KB each in Base64, so sixteen are 5.6 MB.
    await emit({ count: 16, content: Buffer.alloc(256 * 1024, 0x7b) })
    await emit({ count: 1, filler: 3_000_000, content: Buffer.alloc(256 * 1024) })
    await emit({ count: 8 })
    await eventually('all', () => reader.count() === 25, PATIENCE_MS)
    reader.assertWhole(25)
  })

  test(`${name}: the readers of a group share all events`, async (t) => {
    const { emit, another } = await open(t)
    const buses = [another(), another(), another()]
    const readers = buses.map((bus) => readWith(bus, { group: 'shared' }))
    await emit({ count: 400 })
    const ids = () =>
      new Set(readers.flatMap(({ batches }) => batches.flatMap(({ events }) => events.map(({ id }) => id))))
    await eventually('all events', () => ids().size === 400, PATIENCE_MS)
    for (const reader of readers) await reader[Symbol.asyncDispose]()
    for (const bus of buses) await bus[Symbol.asyncDispose]()
  })
}
