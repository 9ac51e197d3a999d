// What goes wrong between a real broker and kafkajs, fault by fault: nothing is lost, order is kept, and it goes on by
// itself. Each test has a broker or a topic of its own.

import assert from 'node:assert/strict'
import { type ChildProcess, fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import kafkajs, { Kafka, logLevel } from 'kafkajs'
import { followLog } from '#shared/bus/follow.ts'
import { createKafkaBus, type KafkaBus } from '#shared/bus/kafka-bus.ts'
import { createLogBus } from '#shared/bus/log-bus.ts'
import { peerCursor } from '#shared/db/peer-cursors.ts'
import { parseEventId } from '#shared/events/event-id.ts'
import type { Region } from '#shared/region.ts'
import { ownLogPages } from '#shared/registry/log-pages.ts'
import { receiveEvents } from '#shared/registry/receive-events.ts'
import { eventually } from '../support/eventually.ts'
import { createReader, readWith, type TestReader } from '../support/follower.ts'
import { publishLog } from '../support/kafka-log.ts'
import { fillLog } from '../support/log-writer.ts'
import { type KafkaCluster, type KafkaOptions, startKafka, withoutKafka } from '../support/parts/kafka.ts'
import { testRegion } from '../support/region.ts'

const PATIENCE_MS = 60_000

interface Bench {
  readonly region: Region
  readonly cluster: KafkaCluster
  readonly topic: string
  readonly bus: KafkaBus
  another(): KafkaBus
  /** Adds events to the log and publishes them, again and again until Kafka takes them. */
  emit(count: number): Promise<void>
  raw(): Kafka
}

async function bench(t: TestContext, options: KafkaOptions & { topicLater?: boolean } = {}): Promise<Bench> {
  const { region } = await testRegion(t)
  const cluster = await startKafka(options)
  const topic = `test.${randomUUID()}`
  const brokers = cluster.brokers.map(({ address }) => address)
  const open: KafkaBus[] = []
  const another = () => {
    const made = createKafkaBus({
      brokers,
      topic,
      clientId: 'test',
      tls: undefined,
      sasl: undefined,
      ...(process.env.TEST_KAFKA_LINES && { onLine: (_line: string) => {} }),
    })
    open.push(made)
    return made
  }
  const bus = another()
  t.after(async () => {
    for (const one of open) await one[Symbol.asyncDispose]()
    await cluster[Symbol.asyncDispose]()
  })
  if (options.topicLater !== true) await bus.ensureTopic({ retentionSeconds: 3600, replicas: undefined })
  const publish = publishLog(region, bus)
  const emit = async (count: number) => {
    await fillLog(region, { count })
    await eventually(
      'Kafka to take the events',
      () =>
        publish().then(
          () => true,
          () => false,
        ),
      PATIENCE_MS,
    )
  }
  const raw = () => new Kafka({ brokers, logLevel: logLevel.NOTHING, retry: { retries: 3 } })
  return { region, cluster, topic, bus, another, emit, raw }
}

/** The reader as a region is: its position in its database, holes filled from the log. Everything exactly once. */
function follow(
  b: Bench,
  bus: KafkaBus,
  options: { group?: string; quietMs?: number; origin?: string } = {},
) {
  const { region } = b
  const { group = 'follower', quietMs = 60_000, origin = 'eu' } = options
  const reader = createReader()
  const pages = ownLogPages(region)
  const following = followLog({
    group,
    bus,
    log: createLogBus({ pages, pollMs: 20 }),
    pages,
    position: (shard) => peerCursor(region.db, { origin, shard }),
    async handle({ shard, events }) {
      const taken: (typeof events)[number][] = []
      const appliers = Object.fromEntries(
        events.map((event) => [event.type, async (_tx: unknown, one: typeof event) => void taken.push(one)]),
      )
      await receiveEvents(region.db, { origin, shard, events, appliers })
      if (taken.length > 0) reader.batches.push({ shard, events: taken })
    },
    onGone: () => Promise.reject(new Error('nothing is gone')),
    onProblem: (problem) => reader.problems.push(problem),
    quietMs,
    retryBusMs: 600_000,
  })
  return { reader, following }
}

function assertOnce(reader: TestReader, events: number): void {
  const ids = reader.batches.flatMap(({ events: some }) => some.map(({ id }) => id))
  assert.equal(ids.length, events, 'each once')
  reader.assertWhole(events)
}

describe('kafka faults', { skip: withoutKafka(), concurrency: false }, () => {
  test('a broker killed three times under load: nothing is lost, order is kept, both sides go on within seconds', async (t) => {
    const b = await bench(t)
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
      t.diagnostic(`flowing ${Math.round(performance.now() - upAtMs)} ms after the broker is up`)
    }
    stop = true
    await writing
    await eventually('all', () => reader.count() === emitted, PATIENCE_MS)
    await following[Symbol.asyncDispose]()
    assertOnce(reader, emitted)
  })

  test('a broker frozen by SIGSTOP for longer than every timeout', async (t) => {
    const b = await bench(t)
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

  test('a consumer frozen until its session expired goes on when it wakes', async (t) => {
    const b = await bench(t)
    const { emit } = b
    const ids = new Set<string>()
    const problems: string[] = []
    const file = join(import.meta.dirname, '../support/kafka-reader-node.ts')
    const flags = ['--disable-warning=TimeoutNegativeWarning']
    const brokers = b.cluster.brokers.map(({ address }) => address).join(',')
    const child: ChildProcess = fork(file, [brokers, b.topic, 'frozen'], { execArgv: flags })
    child.on('message', (message: { ids?: string[]; problem?: string }) => {
      for (const id of message.ids ?? []) ids.add(id)
      if (message.problem !== undefined) problems.push(message.problem)
    })
    try {
      let emitted = 0
      for (let freeze = 0; freeze < 2; freeze++) {
        await emit(400)
        emitted += 400
        if (freeze === 0) await eventually('it to read', () => ids.size === emitted, PATIENCE_MS)
        // In the middle of reading the second time.
        child.kill('SIGSTOP')
        await emit(80)
        emitted += 80
        await pause(12_000)
        child.kill('SIGCONT')
        await eventually('it to have gone on', () => ids.size === emitted, PATIENCE_MS)
      }
      t.diagnostic(`problems: ${problems.join(' | ')}`)
    } finally {
      child.kill('SIGKILL')
    }
  })

  test('a handler slower than the session keeps its membership: its batch does not come again', async (t) => {
    const { bus, emit } = await bench(t)
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

  test('rebalances every second: nothing twice, nothing lost, order kept', async (t) => {
    const b = await bench(t)
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
      // Both keep one position in one database: what one took the other has not.
      reader.batches.push(...other.reader.batches)
    }
    stop = true
    await writing
    await eventually('all', () => reader.count() === emitted, PATIENCE_MS)
    await following[Symbol.asyncDispose]()
    const ids = reader.batches.flatMap(({ events }) => events.map(({ id }) => id))
    assert.equal(ids.length, emitted, 'each once')
    t.diagnostic(`${emitted} events`)
  })

  test('a topic that is missing when the reader starts is waited for', async (t) => {
    const { bus, another, emit } = await bench(t, { topicLater: true })
    await using reader = readWith(another(), { group: 'early' })
    await eventually('the reader to find no topic', () => reader.problems.length > 0, PATIENCE_MS)
    await bus.ensureTopic({ retentionSeconds: 3600, replicas: undefined })
    await emit(80)
    await eventually('all', () => reader.count() === 80, PATIENCE_MS)
    reader.assertWhole(80)
  })

  test('R9: what retention removed before it was read is fetched from the log', async (t) => {
    const b = await bench(t)
    const { bus, topic, emit, raw } = b
    const first = follow(b, b.another())
    await emit(160)
    await eventually('the first', () => first.reader.count() === 160, PATIENCE_MS)
    await first.following[Symbol.asyncDispose]()
    await emit(160)
    const admin = raw().admin()
    await admin.connect()
    const ends = await admin.fetchTopicOffsets(topic)
    // As retention does it: the beginning of the partition moves past what the group committed.
    await admin.deleteTopicRecords({
      topic,
      partitions: ends.map(({ partition, high }) => ({ partition, offset: String(Number(high) - 2) })),
    })
    await admin.disconnect()
    const second = follow(b, bus)
    await eventually('the rest', () => second.reader.count() === 160, PATIENCE_MS)
    await second.following[Symbol.asyncDispose]()
    const both = createReader()
    both.batches.push(...first.reader.batches, ...second.reader.batches)
    assertOnce(both, 320)
  })

  test('R9: a topic deleted and made anew: what it no longer has comes from the log', async (t) => {
    const b = await bench(t)
    const { bus, topic, emit, raw } = b
    const { reader, following } = follow(b, b.another(), { quietMs: 2_000 })
    await emit(80)
    await eventually('the first', () => reader.count() === 80, PATIENCE_MS)
    const admin = raw().admin()
    await admin.connect()
    await admin.deleteTopics({ topics: [topic] })
    await admin.disconnect()
    await fillLog(b.region, { count: 80 })
    await eventually(
      'the topic to be made anew',
      () =>
        bus.ensureTopic({ retentionSeconds: 3600, replicas: 1 }).then(
          () => true,
          () => false,
        ),
      PATIENCE_MS,
    )
    await emit(80)
    await eventually('all', () => reader.count() === 240, PATIENCE_MS)
    await following[Symbol.asyncDispose]()
    assertOnce(reader, 240)
  })

  test('R9: Kafka away while there is something: the log is read after three tries', async (t) => {
    const b = await bench(t)
    const { reader, following } = follow(b, b.another(), { quietMs: 1_000 })
    await b.emit(80)
    await eventually('the first', () => reader.count() === 80, PATIENCE_MS)
    b.cluster.brokers[0]?.kill('SIGSTOP')
    await fillLog(b.region, { count: 80 })
    await eventually('the rest, from the log', () => reader.count() === 160, PATIENCE_MS)
    assert.equal(following.way, 'log')
    b.cluster.brokers[0]?.kill('SIGCONT')
    await following[Symbol.asyncDispose]()
    assertOnce(reader, 160)
  })

  test('one of two brokers killed, again and again: what was acknowledged is in the topic, in order', async (t) => {
    const b = await bench(t, { brokers: 2 })
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

  test('what is no event of ours in the topic is told and passed over', async (t) => {
    const { bus, topic, emit, raw } = await bench(t)
    await using reader = readWith(bus, { group: 'garbage' })
    await emit(8)
    const producer = raw().producer({ createPartitioner: () => () => 0 })
    await producer.connect()
    await producer.send({
      topic,
      messages: [{ value: 'garbage' }, { value: null, key: 'x' }, { value: '{}', headers: { ce_id: 'a' } }],
    })
    await producer.disconnect()
    await emit(8)
    await eventually('all', () => reader.count() === 16, PATIENCE_MS)
    reader.assertWhole(16)
    assert.equal(reader.problems.filter((problem) => /holds no event/.test(String(problem))).length, 3)
    const last = await bus.lastEvents()
    assert.equal(last.length, 8)
    for (const event of last) assert.equal(parseEventId(event.id)?.seq, 2)
  })

  test('the topic is made with eight partitions, retention and replicas that have to agree', async (t) => {
    const { bus, topic, raw } = await bench(t, { brokers: 2, topicLater: true })
    await bus.ensureTopic({ retentionSeconds: 3_600, replicas: undefined })
    await bus.ensureTopic({ retentionSeconds: 60, replicas: 1 })
    const admin = raw().admin()
    await admin.connect()
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    const names = ['retention.ms', 'cleanup.policy', 'min.insync.replicas', 'unclean.leader.election.enable']
    const { resources } = await admin.describeConfigs({
      includeSynonyms: false,
      resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic, configNames: names }],
    })
    await admin.disconnect()
    assert.deepEqual(
      topics[0]?.partitions.map(({ replicas }) => replicas.length),
      [2, 2, 2, 2, 2, 2, 2, 2],
    )
    const values = Object.fromEntries(
      (resources[0]?.configEntries ?? []).map((entry) => [entry.configName, entry.configValue]),
    )
    assert.deepEqual(
      names.map((name) => values[name]),
      ['3600000', 'delete', '1', 'false'],
      'made once: what an operator changes stays',
    )
  })

  test('a topic with too few partitions is refused in a sentence', async (t) => {
    const { bus, topic, raw } = await bench(t, { topicLater: true })
    const admin = raw().admin()
    await admin.connect()
    await admin.createTopics({ topics: [{ topic, numPartitions: 3 }] })
    await admin.disconnect()
    await assert.rejects(
      bus.ensureTopic({ retentionSeconds: 60, replicas: 1 }),
      /has 3 partitions and needs 8/,
    )
  })
})
