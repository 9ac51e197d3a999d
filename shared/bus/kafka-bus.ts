// The bus on Kafka: one topic for one origin, partition = shard. With kafka-topic.ts the only importer of kafkajs 2.2.4,
// which is not maintained; each setting below avoids something that was seen to go wrong with it:
//
// - never the idempotent producer, which lost acknowledged messages: acks from all replicas, one send at a time;
// - a send whose retry finds a partition under another leader, one that has already answered for its own partitions,
//   skips it and still resolves: every partition must be in the answer, or what is missing is sent again;
// - sends end by themselves after few retries: one that goes on for ever would come in between later ones;
// - short sessions, and in a batch first the commit, then resolveOffset, then the heartbeat: a commit after the
//   session expired stopped the consumer for good in another order;
// - handler errors never reach kafkajs (hand-over.ts), and a consumer that stopped for good is built anew;
// - the topic is made before anybody subscribes, and the subscription repeated until it is there;
// - fromBeginning, because a position that retention has passed would jump to the end otherwise;
// - a consumer is stopped only after it has started: one that is still joining would join all the same;
// - stopped while its brokers are away it would look for them until its retries are used up: it is told of none.
//
// Everything has a deadline: kafkajs waits without one in places. It prints TimeoutNegativeWarning once per process
// (tulios/kafkajs#1751); package.json's scripts leave that out.

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
/** Smaller batches cost more to compress than to send: those are the ones of every day. */
const COMPRESSED_BYTES_MIN = 64 * 1024
/** Five minutes: a consumer that gives up sooner comes back under another name, and the group waits for the first one. */
const READ_RETRIES = 150
/** A send that is not over by then hangs, and its producer is given up. */
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
  /** host:port of each. */
  readonly brokers: readonly string[]
  readonly topic: string
  readonly clientId: string
  /** undefined: in the clear. */
  readonly tls: { readonly ca: string | undefined } | undefined
  readonly sasl:
    | {
        readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'
        readonly username: string
        readonly password: string
      }
    | undefined
  /** Keys that regions share; undefined: records are neither signed nor judged. The first signs what is published. */
  readonly keys?: readonly string[] | undefined
  /** Lines of the library, for whoever looks for a fault. */
  onLine?(line: string): void
}

export interface KafkaBus extends Bus {
  /** Makes the topic if it is not there, and waits until it can be written. @throws BusError */
  ensureTopic(options: TopicOptions): Promise<void>
  /** The last event of each partition that has any; those that are not ours are left out. @throws BusError */
  lastEvents(): Promise<CloudEvent[]>
}

export function createKafkaBus(options: KafkaBusOptions): KafkaBus {
  const { topic } = options
  const client = (retries: number, signal?: AbortSignal) => new Kafka(clientConfig(options, retries, signal))
  /** Reads until the signal is given. */
  const reader = (signal: AbortSignal) => client(READ_RETRIES, signal)
  let producing: Promise<Producer> | undefined
  /** One send at a time: the next begins when this is over. */
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

    ensureTopic: (wanted) => withAdmin('making the topic', (admin) => makeTopic(admin, topic, wanted)),

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
      // Brokers that do not answer are not worth waiting for: what they did not take will be sent again.
      await quietly(sending, GOODBYE_MS_MAX)
      const goodbye = producing?.then((made) => made.disconnect())
      producing = undefined
      if (goodbye !== undefined) await quietly(goodbye, GOODBYE_MS_MAX)
    },
  }
}

/** Once the signal is given there are no brokers to connect to, which the library does not try again. */
function clientConfig(options: KafkaBusOptions, retries: number, signal?: AbortSignal): KafkaConfig {
  const { brokers, clientId, tls, sasl, onLine } = options
  return {
    clientId,
    brokers: () => (signal?.aborted ? [] : [...brokers]),
    ...(tls !== undefined && { ssl: tls.ca === undefined ? true : { ca: [tls.ca] } }),
    // A copy, because the library writes into it; its type wants a literal mechanism, ours is one of the three.
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

/** As the library makes them, but that many may wait for one connection: with its brokers away it warned of a leak. */
const socketFactory: ISocketFactory = ({ host, port, ssl, onConnect }) => {
  const socket = ssl
    ? tls.connect({ host, port, ...(net.isIP(host) === 0 && { servername: host }), ...ssl }, onConnect)
    : net.connect({ host, port }, onConnect)
  socket.setKeepAlive(true, KEEP_ALIVE_MS)
  socket.setMaxListeners(0)
  return socket
}

/** Partitions that were sent to and are not in the answer, or in it with an error. */
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
        const what = genuine ? 'no event' : 'what no region has signed'
        options.onProblem(new BusError(`partition ${batch.partition} offset ${message.offset} holds ${what}`))
      } else events.push(event)
    }
    // A handler that takes its time must not cost the membership; what this says is heard by the heartbeat below.
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

  /** Resolves when it consumes. */
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
      // One that is still joining cannot be stopped: it would join after all, and keep partitions that nobody reads.
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
