// Faults between a real broker and kafkajs, one per test. Nothing is lost, order is kept, and the client recovers
// without help. Each test has its own broker.
// tests: shared/bus/deadline.ts, shared/bus/kafka-bus.ts, shared/bus/kafka-topic.ts

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { eventually } from '../support/eventually.ts'
import { readWith } from '../support/follower.ts'
import { assertOnce, follow, forkReader, kafkaBench, PATIENCE_MS } from '../support/kafka-bench.ts'
import { fillLog } from '../support/log-writer.ts'
import { withoutKafka } from '../support/parts/kafka.ts'

describe('kafka faults', { skip: withoutKafka(), concurrency: false }, () => {
  test('a broker killed three times under load: nothing lost, order kept, recovery in seconds', async (t) => {
    const b = await kafkaBench(t)
    const { cluster, emit } = b
    const { reader, following } = follow(b, b.another())
    let emitted = 0
    let stop = false
    const writing = (async () => {
      while (!stop) {
        await emit(40)
        emitted += 40
        await pause(50)
      }
    })()
    for (let kill = 0; kill < 3; kill++) {
      const before = reader.count()
      await eventually('events to flow', () => reader.count() > before + 80, PATIENCE_MS)
      cluster.brokers[0]?.kill('SIGKILL')
      await pause(2_000)
      await cluster.brokers[0]?.restart()
      const upAtMs = performance.now()
      const then = reader.count()
      await eventually('events to flow again', () => reader.count() > then, PATIENCE_MS)
      t.diagnostic(`events flow ${Math.round(performance.now() - upAtMs)} ms after the broker is up`)
    }
    stop = true
    await writing
    await eventually('all', () => reader.count() === emitted, PATIENCE_MS)
    await following[Symbol.asyncDispose]()
    assertOnce(reader, emitted)
  })

  test('a broker frozen by SIGSTOP for longer than every timeout', async (t) => {
    const b = await kafkaBench(t)
    const { cluster, emit } = b
    const { reader, following } = follow(b, b.another())
    await emit(80)
    await eventually('the first', () => reader.count() === 80, PATIENCE_MS)
    cluster.brokers[0]?.kill('SIGSTOP')
    const writing = emit(80)
    await pause(15_000)
    cluster.brokers[0]?.kill('SIGCONT')
    await writing
    await emit(80)
    await eventually('all', () => reader.count() === 240, PATIENCE_MS)
    await following[Symbol.asyncDispose]()
    assertOnce(reader, 240)
  })

  test('a consumer frozen until its session expired continues when resumed', async (t) => {
    const b = await kafkaBench(t)
    const { emit } = b
    const { child, ids, problems } = forkReader(b, 'frozen')
    try {
      let emitted = 0
      for (let freeze = 0; freeze < 2; freeze++) {
        await emit(400)
        emitted += 400
        if (freeze === 0) await eventually('the consumer to read', () => ids.size === emitted, PATIENCE_MS)
        // The second time, freeze it while it reads.
        child.kill('SIGSTOP')
        await emit(80)
        emitted += 80
        await pause(12_000)
        child.kill('SIGCONT')
        await eventually('the consumer to catch up', () => ids.size === emitted, PATIENCE_MS)
      }
      t.diagnostic(`problems: ${problems.join(' | ')}`)
    } finally {
      child.kill('SIGKILL')
    }
  })

  test('a reader that stops while its broker is down exits cleanly', async (t) => {
    const b = await kafkaBench(t)
    const { child, ids } = forkReader(b, 'ending')
    try {
      await b.emit(80)
      await eventually('the reader to read', () => ids.size === 80, PATIENCE_MS)
      b.cluster.brokers[0]?.kill('SIGKILL')
      await pause(3_000)
      const sinceMs = performance.now()
      child.send('end')
      const [code] = await once(child, 'exit', { signal: AbortSignal.timeout(PATIENCE_MS) })
      assert.equal(code, 0)
      t.diagnostic(`exited in ${Math.round(performance.now() - sinceMs)} ms`)
    } finally {
      child.kill('SIGKILL')
    }
  })

  test('a handler slower than the session keeps its membership: its batch is not repeated', async (t) => {
    const { bus, emit } = await kafkaBench(t)
    let slow: number | undefined
    await using reader = readWith(bus, {
      group: 'slow',
      async before({ shard }) {
        if (slow !== undefined) return
        slow = shard
        await pause(13_000)
      },
    })
    await emit(80)
    await eventually('all', () => reader.count() === 80, PATIENCE_MS)
    const ofSlow = reader.batches.filter(({ shard }) => shard === slow).flatMap(({ events }) => events)
    assert.equal(ofSlow.length, 10)
    reader.assertWhole(80)
  })

  test('rebalances every second: nothing repeated, nothing lost, order kept', async (t) => {
    const b = await kafkaBench(t)
    const { emit } = b
    const { reader, following } = follow(b, b.another())
    let emitted = 0
    let stop = false
    const writing = (async () => {
      while (!stop) {
        await emit(40)
        emitted += 40
        await pause(50)
      }
    })()
    for (let round = 0; round < 5; round++) {
      const other = follow(b, b.another())
      other.reader.batches.length = 0
      await pause(1_000)
      await other.following[Symbol.asyncDispose]()
      // Both share one position in one database, so each event reaches only one of them.
      reader.batches.push(...other.reader.batches)
    }
    stop = true
    await writing
    await eventually('all', () => reader.count() === emitted, PATIENCE_MS)
    await following[Symbol.asyncDispose]()
    const ids = reader.batches.flatMap(({ events }) => events.map(({ id }) => id))
    assert.equal(ids.length, emitted, 'each event once')
    t.diagnostic(`${emitted} events`)
  })

  test('R9: if Kafka is unavailable while events are pending, the log is read after three tries', async (t) => {
    const b = await kafkaBench(t)
    const { reader, following } = follow(b, b.another(), { quietMs: 1_000 })
    await b.emit(80)
    await eventually('the first', () => reader.count() === 80, PATIENCE_MS)
    b.cluster.brokers[0]?.kill('SIGSTOP')
    await fillLog(b.region, { count: 80 })
    await eventually('the remaining events from the log', () => reader.count() === 160, PATIENCE_MS)
    assert.equal(following.way, 'log')
    b.cluster.brokers[0]?.kill('SIGCONT')
    await following[Symbol.asyncDispose]()
    assertOnce(reader, 160)
  })

  test('one of two brokers killed repeatedly: acknowledged events are in the topic, in order', async (t) => {
    const b = await kafkaBench(t, { brokers: 2 })
    const { cluster, bus, emit } = b
    await using reader = readWith(bus, { group: 'two' })
    let emitted = 0
    let stop = false
    const writing = (async () => {
      while (!stop) {
        await emit(80)
        emitted += 80
      }
    })()
    for (let kill = 0; kill < 3; kill++) {
      await pause(1_000)
      cluster.brokers[1]?.kill('SIGKILL')
      await pause(4_000)
      await cluster.brokers[1]?.restart()
    }
    stop = true
    await writing
    await eventually('all', () => reader.count() === emitted, PATIENCE_MS)
    t.diagnostic(`${emitted} events`)
    reader.assertWhole(emitted)
  })
})
