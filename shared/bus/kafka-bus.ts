// The bus on Kafka: one topic per origin, one partition per shard. Only this file and kafka-topic.ts import kafkajs
// 2.2.4, which is unmaintained. Each setting below avoids a failure that was observed:
//
// - The idempotent producer is not used, because it lost acknowledged messages. Instead: acks from all replicas, and
// one
//   send at a time.
// - If a send is retried and a partition has moved to a leader that has already answered for its own partitions,
// kafkajs
//   skips that partition and still resolves. So every partition must be in the answer, or its records are sent again.
// - A send ends after few retries. An endless one would interleave with later sends.
// - Sessions are short. Within a batch the order is commit, resolveOffset, heartbeat. In another order, a commit after
// the
//   session had expired stopped the consumer for good.
// - Handler errors never reach kafkajs (hand-over.ts). A consumer that has stopped for good is replaced.
// - The topic is created before any reader subscribes, and subscribing is retried until the topic exists.
// - fromBeginning is set. Without it, a position that retention has passed would jump to the end.
// - A consumer is stopped only after it has started. One that is still joining would join anyway.
// - If a consumer is stopped while its brokers are down, it would look for them until its retries are used up. So it is
//   then given an empty list of brokers.
//
// Everything has a deadline, because kafkajs waits without one in places. It prints TimeoutNegativeWarning once per
// process (tulios/kafkajs#1751); the scripts in package.json suppress that warning.

import net from 'node:net'
import tls from 'node:tls'
import {
  type Admin,
  CompressionTypes,
  type Consumer,
  type EachBatchPayload,
  type ISocketFactory,
  Kafka,
  type KafkaConfig,
  logLevel,
  type Producer,
  type RecordMetadata,
} from 'kafkajs'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { SHARDS } from '#shared/events/event-id.ts'
import {
  fromKafkaRecord,
  type KafkaRecord,
  recordBatches,
  toKafkaRecord,
} from '#shared/events/kafka-record.ts'
import { pause } from '../pause.ts'
import { type Bus, BusError, type SubscribeOptions, type Subscription } from './bus.ts'
import { asBusError, deadline, quietly } from './deadline.ts'
import { handOver } from './hand-over.ts'
import { makeTopic, readOffsets, type TopicOptions } from './kafka-topic.ts'
import { isSigned, signRecord } from './record-signature.ts'

const CONNECT_TIMEOUT_MS = 3_000
const REQUEST_TIMEOUT_MS = 10_000
const RETRY = Object.freeze({ initialRetryTime: 200, maxRetryTime: 2_000 })
const SEND_RETRIES = 2
/** Smaller batches, which are the usual ones, cost more to compress than to send. */
const COMPRESSED_BYTES_MIN = 64 * 1024
/** Five minutes. A consumer that gives up sooner returns under another name, and the group waits for the first one. */
const READ_RETRIES = 150
/** A send that takes longer hangs, and its producer is discarded. */
const SEND_DEADLINE_MS = 120_000
const ADMIN_DEADLINE_MS = 30_000
const GOODBYE_MS_MAX = 1_500
const SESSION_TIMEOUT_MS = 10_000
const HEARTBEAT_MS = 1_000
const REBALANCE_TIMEOUT_MS = 15_000
const FETCH_WAIT_MS = 1_000
const KEEP_ALIVE_MS = 60_000
const REBUILD_PAUSE_MS = 1_000

export interface KafkaBusOptions {
  /** `host:port` of each broker. */
  readonly brokers: readonly string[]
  readonly topic: string
  readonly clientId: string
  /** undefined: no TLS. */
  readonly tls: { readonly ca: string | undefined } | undefined
  readonly sasl:
    | {
        readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'
        readonly username: string
        readonly password: string
      }
    | undefined
  /** Keys that all regions share. The first one signs records. undefined: records are neither signed nor verified. */
  readonly keys?: readonly string[] | undefined
  /** Receives kafkajs's own log lines, for debugging. */
  onLine?(line: string): void
}

export interface KafkaBus extends Bus {
  /** Creates the topic if it does not exist, and waits until it can be written. @throws BusError */
  ensureTopic(options: TopicOptions): Promise<void>
  /** Returns the last event of each partition that has any, without records that are not ours. @throws BusError */
  lastEvents(): Promise<CloudEvent[]>
}

export function createKafkaBus(options: KafkaBusOptions): KafkaBus {
  const { topic } = options
  const client = (retries: number, signal?: AbortSignal) => new Kafka(clientConfig(options, retries, signal))
  /** A client that reads until the signal aborts. */
  const reader = (signal: AbortSignal) => client(READ_RETRIES, signal)
  let producing: Promise<Producer> | undefined
  /** One send at a time: the next starts when this promise settles. */
  let sending: Promise<unknown> = Promise.resolve()

  async function producer(): Promise<Producer> {
    producing ??= (async () => {
      const made = client(SEND_RETRIES).producer({
        idempotent: false,
        allowAutoTopicCreation: false,
        maxInFlightRequests: 1,
        createPartitioner:
          () =>
          ({ message }) =>
            message.partition ?? 0,
      })
      try {
        await deadline(made.connect(), ADMIN_DEADLINE_MS, 'connecting to Kafka')
        return made
      } catch (thrown) {
        await quietly(made.disconnect())
        throw thrown
      }
    })()
    try {
      return await producing
    } catch (thrown) {
      producing = undefined
      throw thrown
    }
  }

  async function send(records: readonly KafkaRecord[]): Promise<void> {
    const made = await producer()
    const messages = records.map(({ partition, key, value, headers }) => ({ partition, key, value, headers }))
    const bytes = records.reduce((sum, record) => sum + record.bytes, 0)
    const compression = bytes < COMPRESSED_BYTES_MIN ? CompressionTypes.None : CompressionTypes.GZIP
    let answered: RecordMetadata[]
    try {
      answered = await deadline(
        made.send({
          topic,
          acks: -1,
          timeout: REQUEST_TIMEOUT_MS,
          compression,
          messages,
        }),
        SEND_DEADLINE_MS,
        'sending to Kafka',
      )
    } catch (thrown) {
      producing = undefined
      await quietly(made.disconnect())
      throw thrown
    }
    const missing = unanswered(records, answered)
    if (missing.length > 0) throw new BusError(`Kafka did not answer for partitions ${missing.join(', ')}`)
  }

  async function withAdmin<T>(what: string, work: (admin: Admin) => Promise<T>): Promise<T> {
    const admin = client(SEND_RETRIES).admin()
    try {
      const working = admin.connect().then(() => work(admin))
      return await deadline(working, ADMIN_DEADLINE_MS, what)
    } catch (thrown) {
      throw asBusError(thrown, what)
    } finally {
      await quietly(admin.disconnect())
    }
  }

  const [signing] = options.keys ?? []
  const recordOf = (event: CloudEvent): KafkaRecord =>
    signing === undefined ? toKafkaRecord(event) : signRecord(toKafkaRecord(event), signing)

  return {
    publish(events) {
      const publishing = sending.then(async () => {
        for (const batch of recordBatches(events.map(recordOf))) await send(batch)
      })
      sending = publishing.catch(() => {})
      return publishing.catch((thrown: unknown) => {
        throw asBusError(thrown, 'publishing to Kafka')
      })
    },

    subscribe: (subscribing) => subscribeTo(reader, { topic, keys: options.keys }, subscribing),

    lag: (group) =>
      withAdmin('asking Kafka for offsets', async (admin) => {
        const [ends, [taken]] = await Promise.all([
          admin.fetchTopicOffsets(topic),
          admin.fetchOffsets({ groupId: group, topics: [topic] }),
        ])
        const committed = new Map(
          taken?.partitions.map(({ partition, offset }) => [partition, Number(offset)]),
        )
        return ends.reduce((sum, { partition, low, high }) => {
          const at = committed.get(partition) ?? -1
          return sum + Number(high) - Math.max(at, Number(low))
        }, 0)
      }),

    ensureTopic: (wanted) => withAdmin('creating the topic', (admin) => makeTopic(admin, topic, wanted)),

    async lastEvents() {
      const ends = await withAdmin('asking Kafka for offsets', (admin) => admin.fetchTopicOffsets(topic))
      const wanted = ends
        .filter(({ low, high }) => Number(high) > Number(low))
        .map(({ partition, high }) => ({ partition, offset: String(Number(high) - 1) }))
      if (wanted.length === 0) return []
      const found = await readOffsets(reader, topic, wanted)
      return found.filter((event) => event !== undefined)
    },

    async [Symbol.asyncDispose]() {
      // Do not wait for brokers that do not answer. What they did not store will be sent again.
      await quietly(sending, GOODBYE_MS_MAX)
      const goodbye = producing?.then((made) => made.disconnect())
      producing = undefined
      if (goodbye !== undefined) await quietly(goodbye, GOODBYE_MS_MAX)
    },
  }
}

/** Once the signal aborts there are no brokers to connect to, and the library does not retry that. */
function clientConfig(options: KafkaBusOptions, retries: number, signal?: AbortSignal): KafkaConfig {
  const { brokers, clientId, tls, sasl, onLine } = options
  return {
    clientId,
    brokers: () => (signal?.aborted ? [] : [...brokers]),
    ...(tls !== undefined && { ssl: tls.ca === undefined ? true : { ca: [tls.ca] } }),
    // A copy, because the library writes to it. Its type requires a literal mechanism; ours is one of the three.
    ...(sasl !== undefined && { sasl: { ...sasl } as Exclude<KafkaConfig['sasl'], undefined> }),
    socketFactory,
    connectionTimeout: CONNECT_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    retry: { ...RETRY, retries },
    logLevel: onLine === undefined ? logLevel.NOTHING : logLevel.WARN,
    logCreator:
      () =>
      ({ log }) =>
        onLine?.(log.message),
  }
}

/** Like the library's own, but with a higher listener limit: with its brokers down it printed a leak warning. */
const socketFactory: ISocketFactory = ({ host, port, ssl, onConnect }) => {
  const socket = ssl
    ? tls.connect({ host, port, ...(net.isIP(host) === 0 && { servername: host }), ...ssl }, onConnect)
    : net.connect({ host, port }, onConnect)
  socket.setKeepAlive(true, KEEP_ALIVE_MS)
  socket.setMaxListeners(0)
  return socket
}

/** Returns the partitions that were sent to but are missing from the answer, or have an error in it. */
function unanswered(records: readonly KafkaRecord[], answered: readonly RecordMetadata[]): number[] {
  const fine = new Set(answered.filter(({ errorCode }) => errorCode === 0).map(({ partition }) => partition))
  return [...new Set(records.map(({ partition }) => partition))].filter((partition) => !fine.has(partition))
}

function subscribeTo(
  client: (signal: AbortSignal) => Kafka,
  { topic, keys }: Pick<KafkaBusOptions, 'topic' | 'keys'>,
  options: SubscribeOptions,
): Subscription {
  const stopping = new AbortController()
  const { signal } = stopping

  async function eachBatch(payload: EachBatchPayload): Promise<void> {
    const { batch, heartbeat, isRunning, isStale, commitOffsetsIfNecessary, resolveOffset } = payload
    const wanted = async () => {
      await heartbeat()
      return isRunning() && !isStale()
    }
    const last = batch.messages.at(-1)
    if (last === undefined || !(await wanted())) return
    const events: CloudEvent[] = []
    for (const message of batch.messages) {
      const genuine = keys === undefined || isSigned(message, keys)
      const event = genuine ? fromKafkaRecord(message) : undefined
      if (event === undefined) {
        const what = genuine ? 'no event' : 'a record that no region signed'
        options.onProblem(new BusError(`partition ${batch.partition} offset ${message.offset} holds ${what}`))
      } else events.push(event)
    }
    // A slow handler must not cost the group membership. The heartbeat below notices what this one ignores.
    const beat = setInterval(() => void heartbeat().catch(() => {}), HEARTBEAT_MS)
    try {
      const done =
        events.length === 0 ||
        (await handOver(() => options.handle({ shard: batch.partition, events }), {
          signal,
          onProblem: options.onProblem,
          goOn: wanted,
        }))
      if (!done) return
    } finally {
      clearInterval(beat)
    }
    const offset = String(Number(last.offset) + 1)
    await commitOffsetsIfNecessary({
      topics: [{ topic, partitions: [{ partition: batch.partition, offset }] }],
    })
    resolveOffset(last.offset)
    await heartbeat()
  }

  /** Resolves when the consumer is running. */
  async function start(consumer: Consumer): Promise<void> {
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    if (signal.aborted) return
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: SHARDS,
      eachBatch,
    })
  }

  async function work(): Promise<void> {
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
    while (!signal.aborted) {
      const consumer = client(signal).consumer({
        groupId: options.group,
        sessionTimeout: SESSION_TIMEOUT_MS,
        heartbeatInterval: HEARTBEAT_MS,
        rebalanceTimeout: REBALANCE_TIMEOUT_MS,
        maxWaitTimeInMs: FETCH_WAIT_MS,
        allowAutoTopicCreation: false,
        retry: { ...RETRY, retries: READ_RETRIES },
      })
      const stopped = Promise.withResolvers<void>()
      consumer.on(consumer.events.CRASH, ({ payload }) => {
        options.onProblem(payload.error)
        if (!payload.restart) stopped.resolve()
      })
      const starting = start(consumer).catch((thrown: unknown) => {
        if (!signal.aborted) options.onProblem(thrown)
        stopped.resolve()
      })
      await Promise.race([stopped.promise, aborted])
      // A consumer that is still joining cannot be stopped: it would join anyway and keep partitions that nobody reads.
      await quietly(starting)
      await quietly(consumer.disconnect())
      void starting.then(() => quietly(consumer.disconnect()))
      await pause(REBUILD_PAUSE_MS, { signal })
    }
  }

  const working = work()
  return {
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await working
    },
  }
}
