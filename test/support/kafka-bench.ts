// A region, a broker and a topic for one test, with a writer and a reader. The fault tests of the bus run on it. The
// reader behaves like a region: its position is stored in its database, and gaps are filled from the log.

import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { Kafka, logLevel } from 'kafkajs'
import { followLog } from '#shared/bus/follow.ts'
import { createKafkaBus, type KafkaBus } from '#shared/bus/kafka-bus.ts'
import { createLogBus } from '#shared/bus/log-bus.ts'
import { placeAtPeer } from '#shared/db/places-at-peers.ts'
import type { Region } from '#shared/region.ts'
import { ownLogPages } from '#shared/registry/log-pages.ts'
import { receiveEvents } from '#shared/replication/receive-events.ts'
import { eventually } from './eventually.ts'
import { createReader, type TestReader } from './follower.ts'
import { publishLog } from './kafka-log.ts'
import { fillLog } from './log-writer.ts'
import { type KafkaCluster, type KafkaOptions, startKafka } from './parts/kafka.ts'
import { testRegion } from './region.ts'

export const PATIENCE_MS = 60_000

export interface KafkaBench {
  readonly region: Region
  readonly cluster: KafkaCluster
  readonly brokers: readonly string[]
  readonly topic: string
  readonly bus: KafkaBus
  another(): KafkaBus
  /** Adds events to the log and publishes them, retrying until Kafka accepts them. */
  emit(count: number): Promise<void>
  raw(): Kafka
}

export async function kafkaBench(
  t: TestContext,
  options: KafkaOptions & { topicLater?: boolean; keys?: readonly string[] } = {},
): Promise<KafkaBench> {
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
      keys: options.keys,
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
      'Kafka to accept the events',
      () =>
        publish().then(
          () => true,
          () => false,
        ),
      PATIENCE_MS,
    )
  }
  const raw = () => new Kafka({ brokers, logLevel: logLevel.NOTHING, retry: { retries: 3 } })
  return { region, cluster, brokers, topic, bus, another, emit, raw }
}

/** Starts a reader in a separate process. */
export function forkReader(b: KafkaBench, group: string) {
  const child = fork(
    join(import.meta.dirname, 'kafka-reader-node.ts'),
    [b.brokers.join(','), b.topic, group],
    { execArgv: ['--disable-warning=TimeoutNegativeWarning'] },
  )
  const ids = new Set<string>()
  const problems: string[] = []
  child.on('message', (message: { ids?: string[]; problem?: string }) => {
    for (const id of message.ids ?? []) ids.add(id)
    if (message.problem !== undefined) problems.push(message.problem)
  })
  return { child, ids, problems }
}

/** Follows the topic as a region does. Each event reaches the reader exactly once. */
export function follow(
  b: KafkaBench,
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
    position: (shard) => placeAtPeer(region.db, { origin, shard }),
    async handle({ shard, events }) {
      const taken: (typeof events)[number][] = []
      const applier = {
        types: new Set(events.map(({ type }) => type)),
        apply: async (_: unknown, batch: { events: readonly { event: (typeof events)[number] }[] }) =>
          void taken.push(...batch.events.map(({ event }) => event)),
      }
      await receiveEvents(region.db, { origin, shard, events, applier })
      if (taken.length > 0) reader.batches.push({ shard, events: taken })
    },
    onGone: () => Promise.reject(new Error('unexpected: events were trimmed')),
    onProblem: (problem) => reader.problems.push(problem),
    quietMs,
    retryBusMs: 600_000,
  })
  return { reader, following }
}

export function assertOnce(reader: TestReader, events: number): void {
  const ids = reader.batches.flatMap(({ events: some }) => some.map(({ id }) => id))
  assert.equal(ids.length, events, 'each event once')
  reader.assertWhole(events)
}
