// From a push through the relay to Kafka: what the relay publishes, and how it handles an unavailable Kafka, a killed
// relay and a restored database.

import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { cp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { openKafka } from '#shared/bus/open-kafka.ts'
import { loadConfig } from '#shared/config/load.ts'
import { type LoggedEvent, logBounds, readEvents } from '#shared/db/event-log.ts'
import { ownReaderPosition } from '#shared/db/own-readers.ts'
import { logWasCompared, regionRow, sweepsPaused } from '#shared/db/region.ts'
import { parseEventId } from '#shared/events/event-id.ts'
import { openRegion, type Region, withStores } from '#shared/region.ts'
import { addWebhook } from '#shared/webhooks/subscriptions.ts'
import { createOrphanSweep } from '../../services/janitor/sweep-orphans.ts'
import { startRelay } from '../../services/relay/service.ts'
import { startWebhooks } from '../../services/webhooks/service.ts'
import { eventually } from '../support/eventually.ts'
import { readWith } from '../support/follower.ts'
import { HELD } from '../support/held.ts'
import { fillOutbox } from '../support/log-writer.ts'
import { type KafkaCluster, startKafka, withoutKafka } from '../support/parts/kafka.ts'
import { provenance, push, repositoryName, tags } from '../support/push.ts'
import { testDirectory, testRegion } from '../support/region.ts'

const PATIENCE_MS = 60_000

async function kafka(t: TestContext, options: { stopped?: boolean } = {}): Promise<KafkaCluster> {
  const cluster = await startKafka(options)
  t.after(() => cluster[Symbol.asyncDispose]())
  return cluster
}

function reading(region: Region, options: { group?: string; idsOnly?: boolean } = {}) {
  const { group = 'test', idsOnly = false } = options
  assert.ok(region.config.kafka)
  const bus = openKafka(region.config.kafka, region)
  const reader = readWith(bus, { group, idsOnly })
  return {
    reader,
    async [Symbol.asyncDispose]() {
      await reader[Symbol.asyncDispose]()
      await bus[Symbol.asyncDispose]()
    },
  }
}

async function published(region: Region): Promise<boolean> {
  const [bounds, cursor] = await Promise.all([logBounds(region.db), ownReaderPosition(region.db, 'kafka')])
  return cursor?.epoch === bounds.head.epoch && cursor.pos === bounds.head.pos
}

describe('the relay and Kafka', { skip: withoutKafka(), concurrency: false }, () => {
  test('R10: the topic has a push as manifest, tags and notification, with trace and content', async (t) => {
    const cluster = await kafka(t)
    const { region } = await testRegion(t, { env: cluster.env })
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    await using relay = await startRelay(region)
    await using following = reading(region)
    const { reader } = following
    await push(region.db, repositoryName('team/app'), 'one', {
      tags: tags('v1'),
      provenance: { ...provenance, traceparent },
    })
    await eventually('the events', () => reader.count() === 3, PATIENCE_MS)
    const events = reader.batches.flatMap((batch) => batch.events)
    assert.deepEqual(
      events.map(({ type, subject }) => `${type.split('.').slice(3).join('.')} ${subject.split('@')[0]}`),
      ['manifest.put.v1 team/app', 'tag.set.v1 team/app:v1', 'push.v1 team/app'],
    )
    assert.equal(events[0]?.data.content, Buffer.from('one').toString('base64'))
    for (const event of events) assert.equal(event.traceparent, traceparent)
    assert.match(await region.metrics.text(), /portolan_kafka_published_total 3/)
    void relay
  })

  test('a webhook is in the topic as events without values, so no secret, clear or sealed', async (t) => {
    const cluster = await kafka(t)
    const { region } = await testRegion(t, { env: cluster.env })
    await using relay = await startRelay(region)
    await using following = reading(region)
    const { reader } = following
    const given = {
      url: 'https://hook.example/planted-in-url',
      secret: `whsec_${Buffer.from('planted-secret-of-32-characters!').toString('base64')}`,
      headers: { Authorization: 'Bearer planted-in-header' },
    }
    await addWebhook(region, { given, provenance })
    // Ten fields, and one event for the existence of the object.
    await eventually('the events', () => reader.count() === 11, PATIENCE_MS)
    const events = reader.batches.flatMap((batch) => batch.events)
    for (const { type, data } of events) {
      assert.equal(type, 'dev.portolan.registry.setting.set.v1')
      assert.equal(data.abridged, true)
      assert.ok(!('value' in data))
    }
    assert.doesNotMatch(JSON.stringify(events), /planted|sealed|whsec/)
    void relay
  })

  test('Kafka missing at startup: pushes and the log work, and events are delivered in order later', async (t) => {
    const cluster = await kafka(t, { stopped: true })
    const { region, logLines } = await testRegion(t, { env: cluster.env })
    await using relay = await startRelay(region)
    for (let n = 0; n < 50; n++)
      await push(region.db, repositoryName('a/b'), `m${n}`, { tags: tags('latest') })
    await eventually('the log', async () => (await logBounds(region.db)).head.pos === 150)
    assert.equal(await createOrphanSweep(region)(new AbortController().signal, HELD), 0)
    await cluster.brokers[0]?.restart()
    await using following = reading(region)
    await eventually('all events', () => following.reader.count() === 150, PATIENCE_MS)
    following.reader.assertWhole(150)
    const told = logLines.filter((line) => line.includes('Kafka does not accept events'))
    assert.equal(told.length, 1, 'logged once, not for each attempt')
    assert.ok(logLines.some((line) => line.includes('Kafka accepts events again')))
    void relay
  })

  test('a relay stops quickly even if Kafka is down or silent', async (t) => {
    const cluster = await kafka(t)
    const { region } = await testRegion(t, { env: cluster.env })
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const) {
      const relay = await startRelay(region)
      await fillOutbox(region.db, { count: 8 })
      await eventually('the relay to publish', () => published(region), PATIENCE_MS)
      cluster.brokers[0]?.kill(signal)
      await fillOutbox(region.db, { count: 8 })
      await pause(500)
      const startMs = performance.now()
      await relay[Symbol.asyncDispose]()
      const ms = performance.now() - startMs
      t.diagnostic(`${signal}: ${Math.round(ms)} ms`)
      assert.ok(ms < 10_000)
      cluster.brokers[0]?.kill('SIGCONT')
    }
  })

  const downSeconds = Number(process.env.TEST_KAFKA_DOWN_SECONDS ?? 8)
  test(`Kafka down for ${downSeconds} s under load: pushes unaffected, memory bounded, order kept`, async (t) => {
    const cluster = await kafka(t)
    const { region } = await testRegion(t, { env: cluster.env })
    await using relay = await startRelay(region)
    await using following = reading(region, { idsOnly: true })
    let pushed = 0
    const timesMs: number[] = []
    let stop = false
    const writer = async (number: number) => {
      for (let n = 0; !stop; n++) {
        const startMs = performance.now()
        await push(region.db, repositoryName(`team/app${(number + n) % 8}`), `m${number}-${n}`, {
          tags: tags('latest'),
        })
        timesMs.push(performance.now() - startMs)
        pushed++
        await pause(20)
      }
    }
    const writing = [0, 1, 2, 3].map(writer)
    await pause(2_000)
    cluster.brokers[0]?.kill('SIGKILL')
    global.gc?.()
    const before = { pushed, times: timesMs.length, heap: process.memoryUsage().heapUsed }
    await pause(downSeconds * 1_000)
    const during = timesMs.slice(before.times)
    const perSecondBefore = before.pushed / 2
    const perSecondDuring = during.length / downSeconds
    t.diagnostic(
      `pushes/s before ${perSecondBefore.toFixed(0)}, while Kafka is down ${perSecondDuring.toFixed(0)}`,
    )
    // Pending events wait in the log. The relay holds one page in memory.
    const moreBytes = process.memoryUsage().heapUsed - before.heap
    t.diagnostic(`heap growth ${(moreBytes / 2 ** 20).toFixed(0)} MiB`)
    assert.ok(moreBytes < 100 * 2 ** 20)
    assert.ok(during.length > 20 * downSeconds, `${during.length} pushes while Kafka was down`)
    await cluster.brokers[0]?.restart()
    await pause(1_000)
    stop = true
    await Promise.all(writing)
    await eventually('all events to be published', () => published(region), PATIENCE_MS + downSeconds * 1_000)
    await eventually(
      'all events',
      () => following.reader.count() === pushed * 3,
      PATIENCE_MS + downSeconds * 1_000,
    )
    following.reader.assertWhole(pushed * 3)
    void relay
  })

  test('a relay killed between send and record sends again under the same IDs and loses nothing', async (t) => {
    const cluster = await kafka(t)
    const { region } = await testRegion(t, { env: cluster.env })
    const file = join(import.meta.dirname, '../support/relay-node.ts')
    const kills = 6
    for (let kill = 0; kill < kills; kill++) {
      await fillOutbox(region.db, { count: 40 })
      const child = fork(file, [region.databaseUrl, region.config.dataDir, '0', 'kafka-sent'], {
        env: { ...process.env, ...cluster.env },
        execArgv: ['--disable-warning=TimeoutNegativeWarning'],
      })
      const signal = await new Promise((done) => child.once('exit', (_code, by) => done(by)))
      assert.equal(signal, 'SIGKILL')
    }
    await using relay = await startRelay(region)
    await using following = reading(region)
    await eventually('all', () => following.reader.count() === kills * 40, PATIENCE_MS)
    following.reader.assertWhole(kills * 40)
    const all = following.reader.batches.flatMap(({ events }) => events).length
    t.diagnostic(`${all - kills * 40} repeated events`)
    assert.ok(all > kills * 40, 'the kills hit after a send')
    void relay
  })

  test('one of two relays publishes, and the other takes over when the first is gone', async (t) => {
    const cluster = await kafka(t)
    const { region } = await testRegion(t, { env: cluster.env })
    const other = await openRegion(region.config)
    const first = await startRelay(region)
    const second = await startRelay(other)
    await using following = reading(region)
    await fillOutbox(region.db, { count: 80 })
    await eventually('all', () => following.reader.count() === 80, PATIENCE_MS)
    await first[Symbol.asyncDispose]()
    await fillOutbox(region.db, { count: 80 })
    await eventually('all events', () => following.reader.count() === 160, PATIENCE_MS)
    following.reader.assertWhole(160)
    assert.equal(
      following.reader.batches.flatMap(({ events }) => events).length,
      160,
      'each event published by only one relay',
    )
    await second[Symbol.asyncDispose]()
    await other[Symbol.asyncDispose]()
  })

  test('R11: after a restore of an older backup, a push gets a higher epoch and orphans are kept', async (t) => {
    const cluster = await kafka(t)
    const dataDir = await testDirectory(t)
    const backup = await testDirectory(t)
    const received: string[] = []
    const receiver = createServer((request, response) => {
      received.push(String(request.headers['webhook-id']))
      response.end()
    })
    await new Promise<void>((done) => receiver.listen(0, '127.0.0.1', done))
    t.after(() => receiver.close())
    // The database is embedded. The backup is a copy of its files only.
    const config = loadConfig({
      PORTOLAN_DATA_DIR: dataDir,
      PORTOLAN_METRICS_LISTEN: 'off',
      PORTOLAN_LOG_LEVEL: 'error',
      ...cluster.env,
    })
    const postgres = join(dataDir, 'eu', 'postgres')
    const repository = repositoryName('team/app')
    const run = async <T>(work: (region: Region) => Promise<T>): Promise<T> => {
      await using region = await openRegion(config)
      await using relay = await startRelay(region)
      await using webhooks = await startWebhooks(region)
      const result = await work(region)
      void relay
      void webhooks
      return result
    }
    const events = (region: Region) => readEvents(region.db, { after: { epoch: 1, pos: 0 }, limit: 100 })

    await run(async (region) => {
      await eventually(
        'the planner',
        async () => (await ownReaderPosition(region.db, 'webhooks')) !== undefined,
      )
      await addWebhook(region, {
        given: {
          url: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`,
          allowPrivate: true,
          format: 'cloudevents',
        },
        provenance,
      })
      await push(region.db, repository, 'before the backup', { tags: tags('v1') })
      await eventually('the event at the receiver', () => received.length === 1, PATIENCE_MS)
      await eventually('the event in Kafka', () => published(region), PATIENCE_MS)
      assert.equal(await logWasCompared(region.db), true)
      assert.equal(await sweepsPaused(region.db), false)
    })
    await cp(postgres, backup, { recursive: true })
    await run(async (region) => {
      assert.equal((await regionRow(region.db)).epoch, 1)
      for (const text of ['two', 'three', 'four'])
        await push(region.db, repository, text, { tags: tags('v1') })
      await eventually('the events at the receiver', () => received.length === 4, PATIENCE_MS)
      await eventually('the events in Kafka', () => published(region), PATIENCE_MS)
    })
    // The restored copy has the same system identifier and the same timeline.
    await rm(postgres, { recursive: true })
    await cp(backup, postgres, { recursive: true })

    await run(async (region) => {
      await using following = reading(region, { group: 'after' })
      const { db } = region
      const outcome = await push(db, repository, 'after the restore', { tags: tags('v1') })
      assert.equal(outcome.kind, 'pushed')
      await eventually('the comparison', () => logWasCompared(db), PATIENCE_MS)
      const isNew = ({ epoch, type }: LoggedEvent) => epoch === 2 && type.endsWith('.push.v1')
      await eventually('the feed', async () => (await events(region)).some(isNew), PATIENCE_MS)
      const inFeed = (await events(region)).filter(isNew)
      assert.equal(inFeed.length, 1)
      await eventually('Kafka', () => published(region), PATIENCE_MS)
      const digest = inFeed[0]?.payload.digest
      await eventually(
        'a reader of Kafka',
        () =>
          following.reader.batches.some((batch) =>
            batch.events.some(
              (event) =>
                parseEventId(event.id)?.epoch === 2 &&
                event.data.digest === digest &&
                event.type.endsWith('.push.v1'),
            ),
          ),
        PATIENCE_MS,
      )
      await eventually('the receiver', () => received.some((id) => id.startsWith('eu:2:')), PATIENCE_MS)
      assert.equal(await sweepsPaused(db), true)
      const refuse = () => Promise.reject(new Error('the sweep looked for orphans'))
      const stored = await withStores(region)
      const sweep = createOrphanSweep({
        ...stored,
        blobs: { ...stored.blobs, list: refuse, dropUnfinished: refuse },
      })
      assert.equal(await sweep(new AbortController().signal, HELD), 0)
      assert.equal(new Set(received).size, received.length, 'no ID was used twice')
    })
    // The epoch is raised only once.
    await run(async (region) => {
      await eventually('the comparison', () => logWasCompared(region.db), PATIENCE_MS)
      assert.equal((await regionRow(region.db)).epoch, 2)
      assert.ok((await events(region)).every(({ epoch }) => epoch <= 2))
    })
  })
})
