// The topic itself: creation, a missing or recreated topic, trimming by retention, and foreign records.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import kafkajs from 'kafkajs'
import { parseEventId } from '#shared/events/event-id.ts'
import { toKafkaRecord } from '#shared/events/kafka-record.ts'
import { eventually } from '../support/eventually.ts'
import { createReader, readWith } from '../support/follower.ts'
import { assertOnce, follow, kafkaBench, PATIENCE_MS } from '../support/kafka-bench.ts'
import { fillLog } from '../support/log-writer.ts'
import { withoutKafka } from '../support/parts/kafka.ts'

describe('kafka topic', { skip: withoutKafka(), concurrency: false }, () => {
  test('a reader waits for a topic that is missing when it starts', async (t) => {
    const { bus, another, emit } = await kafkaBench(t, { topicLater: true })
    await using reader = readWith(another(), { group: 'early' })
    await eventually('the reader to find no topic', () => reader.problems.length > 0, PATIENCE_MS)
    await bus.ensureTopic({ retentionSeconds: 3600, replicas: undefined })
    await emit(80)
    await eventually('all', () => reader.count() === 80, PATIENCE_MS)
    reader.assertWhole(80)
  })

  test('R9: events that retention removed before they were read are fetched from the log', async (t) => {
    const b = await kafkaBench(t)
    const { bus, topic, emit, raw } = b
    const first = follow(b, b.another())
    await emit(160)
    await eventually('the first', () => first.reader.count() === 160, PATIENCE_MS)
    await first.following[Symbol.asyncDispose]()
    await emit(160)
    const admin = raw().admin()
    await admin.connect()
    const ends = await admin.fetchTopicOffsets(topic)
    // Like retention, move the beginning of the partition past the position that the group committed.
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

  test('R9: after a topic is deleted and recreated, the missing events come from the log', async (t) => {
    const b = await kafkaBench(t)
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
      'the topic to be recreated',
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

  test('a record that is not an event of Portolan is reported and skipped', async (t) => {
    const { bus, topic, emit, raw } = await kafkaBench(t)
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

  test('a record that no region signed is reported and skipped, however genuine it looks', async (t) => {
    const keys = ['a-key-of-the-regions-0123456789-0123456789']
    const { bus, topic, emit, raw } = await kafkaBench(t, { keys })
    await using reader = readWith(bus, { group: 'forged' })
    await emit(8)
    await eventually('the genuine events', () => reader.count() === 8, PATIENCE_MS)
    const [event] = reader.batches[0]?.events ?? []
    assert.ok(event)
    const { partition, key, value, headers } = toKafkaRecord({ ...event, id: event.id.replace(/\d+$/, '2') })
    const producer = raw().producer({ createPartitioner: () => () => partition })
    await producer.connect()
    await producer.send({ topic, messages: [{ key, value, headers }] })
    await producer.disconnect()
    await eventually(
      'the report',
      () => reader.problems.some((problem) => /no region (has )?signed/.test(String(problem))),
      PATIENCE_MS,
    )
    await emit(8)
    await eventually('the next events', () => reader.count() === 16, PATIENCE_MS)
    reader.assertWhole(16)
  })

  test('the topic is created with eight partitions, retention and minimum in-sync replicas', async (t) => {
    const { bus, topic, raw } = await kafkaBench(t, { brokers: 2, topicLater: true })
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
      'set only at creation, so that changes by an operator are kept',
    )
  })

  test('a topic with too few partitions is rejected with a clear error', async (t) => {
    const { bus, topic, raw } = await kafkaBench(t, { topicLater: true })
    const admin = raw().admin()
    await admin.connect()
    await admin.createTopics({ topics: [{ topic, numPartitions: 3 }] })
    await admin.disconnect()
    await assert.rejects(
      bus.ensureTopic({ retentionSeconds: 60, replicas: 1 }),
      /has 3 partitions but needs 8/,
    )
  })
})
