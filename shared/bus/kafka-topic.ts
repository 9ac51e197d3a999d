// The topic of an origin's events: creates it explicitly, and reads the records at its ends.

import { setTimeout as pause } from 'node:timers/promises'
import type { Admin, Kafka } from 'kafkajs'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { SHARDS } from '#shared/events/event-id.ts'
import { fromKafkaRecord } from '#shared/events/kafka-record.ts'
import { BusError } from './bus.ts'
import { asBusError, deadline, quietly } from './deadline.ts'

const TOPIC_PAUSE_MS = 100
const TOPIC_POLLS_MAX = 100
const REPLICAS_MAX = 3
const READ_DEADLINE_MS = 30_000
const FETCH_WAIT_MS = 1_000

export interface TopicOptions {
  readonly retentionSeconds: number
  /** undefined: one per broker, up to three. */
  readonly replicas: number | undefined
}

/**
 * Creates the topic if it does not exist, and waits until each partition has a leader; nothing can be sent before that.
 * @throws BusError if it exists with too few partitions, or if leaders are still missing at the end
 */
export async function makeTopic(admin: Admin, topic: string, wanted: TopicOptions): Promise<void> {
  const { brokers } = await admin.describeCluster()
  const replicas = wanted.replicas ?? Math.min(REPLICAS_MAX, brokers.length)
  const existing = await admin.listTopics()
  if (!existing.includes(topic)) {
    const configuration = {
      'cleanup.policy': 'delete',
      'retention.ms': String(wanted.retentionSeconds * 1_000),
      'min.insync.replicas': String(replicas >= REPLICAS_MAX ? 2 : 1),
      'unclean.leader.election.enable': 'false',
    }
    await admin
      .createTopics({
        waitForLeaders: false,
        topics: [
          {
            topic,
            numPartitions: SHARDS,
            replicationFactor: replicas,
            configEntries: Object.entries(configuration).map(([name, value]) => ({ name, value })),
          },
        ],
      })
      .catch((thrown: unknown) => {
        // It may have worked anyway, or another process was faster. The check below decides.
        if (!/UNKNOWN_TOPIC_OR_PARTITION|TOPIC_ALREADY_EXISTS/.test(typeOf(thrown))) throw thrown
      })
  }
  for (let poll = 0; poll < TOPIC_POLLS_MAX; poll++) {
    const partitions = await admin.fetchTopicMetadata({ topics: [topic] }).then(
      ({ topics }) => topics[0]?.partitions ?? [],
      () => [],
    )
    const led = partitions.filter(({ leader }) => leader >= 0).length
    // A leader that was just elected may not know the topic yet.
    const leads = () =>
      admin.fetchTopicOffsets(topic).then(
        () => true,
        () => false,
      )
    if (led >= SHARDS && led === partitions.length && (await leads())) return
    if (partitions.length > 0 && partitions.length < SHARDS) {
      throw new BusError(
        `topic ${topic} has ${partitions.length} partitions but needs ${SHARDS}: recreate it`,
      )
    }
    await pause(TOPIC_PAUSE_MS)
  }
  throw new BusError(`topic ${topic} has partitions without a leader`)
}

/** Returns Kafka's names of the error and of the errors that it aggregates. */
function typeOf(thrown: unknown): string {
  const {
    type = '',
    message = '',
    errors = [],
  } = thrown as { type?: string; message?: string; errors?: unknown[] }
  return [type, message, ...errors.map(typeOf)].join(' ')
}

/**
 * Reads one record of each given partition, with a temporary group that is deleted afterwards.
 * Returns undefined for a record that is not an event. @throws BusError
 */
export async function readOffsets(
  reader: (signal: AbortSignal) => Kafka,
  topic: string,
  wanted: readonly { partition: number; offset: string }[],
): Promise<(CloudEvent | undefined)[]> {
  const over = new AbortController()
  const client = reader(over.signal)
  const groupId = `portolan.ends.${crypto.randomUUID()}`
  const consumer = client.consumer({ groupId, allowAutoTopicCreation: false, maxWaitTimeInMs: FETCH_WAIT_MS })
  const found = new Map<number, CloudEvent | undefined>()
  const all = Promise.withResolvers<void>()
  const reading = async () => {
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    consumer.on(consumer.events.CRASH, ({ payload }) => all.reject(payload.error))
    await consumer.run({
      autoCommit: false,
      async eachMessage({ partition, message }) {
        if (!wanted.some((one) => one.partition === partition && one.offset === message.offset)) return
        found.set(partition, fromKafkaRecord(message))
        if (found.size === wanted.length) all.resolve()
      },
    })
    for (const { partition, offset } of wanted) consumer.seek({ topic, partition, offset })
    await all.promise
  }
  try {
    await deadline(reading(), READ_DEADLINE_MS, 'reading the ends of the topic')
    return [...found.values()]
  } catch (thrown) {
    throw asBusError(thrown, 'reading the ends of the topic')
  } finally {
    await quietly(consumer.disconnect())
    const admin = client.admin()
    await quietly(admin.connect().then(() => admin.deleteGroups([groupId])))
    await quietly(admin.disconnect())
    over.abort()
  }
}
