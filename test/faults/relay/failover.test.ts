// A failover to an asynchronous standby. The last writes of the old primary are lost, but neither their event IDs nor
// the positions in their responses are ever assigned to anything else.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type LoggedEvent, readEvents } from '#shared/db/event-log.ts'
import { migrate } from '#shared/db/migrate.ts'
import { regionRow, sweepsPaused } from '#shared/db/region.ts'
import { statement } from '#shared/db/statement.ts'
import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { type CloudEvent, toCloudEvent } from '#shared/events/cloud-event.ts'
import { compareTopic } from '../../../services/relay/compare-topic.ts'
import { startRelay } from '../../../services/relay/service.ts'
import { eventually } from '../../support/eventually.ts'
import { type TestImage, testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { execute, TEST_REGION } from '../../support/postgres.ts'
import { push, repositoryName, tags } from '../../support/push.ts'
import { type TestNode, testDirectory, testNode } from '../../support/region.ts'
import {
  caughtUp,
  copyServer,
  cutStreaming,
  primaryAndStandby,
  startSwitch,
  UNSAFE_SETTINGS,
} from '../../support/standby.ts'

const PUSHES = 15
const PATIENCE_MS = 30_000

async function feed({ region }: TestNode): Promise<LoggedEvent[]> {
  const events: LoggedEvent[] = []
  for (let after = { epoch: 1, pos: 0 }; ; ) {
    const page = await readEvents(region.db, { after, limit: 1_000 })
    const last = page.at(-1)
    if (last === undefined) return events
    events.push(...page)
    after = { epoch: last.epoch, pos: last.pos }
  }
}

const ids = statement<{ id: string }>(
  'test-outbox-ids',
  'select outbox_id::text as id from event_log order by epoch, pos',
)

async function outboxIds({ region }: TestNode): Promise<string[]> {
  return (await region.db.rows(ids)).map(({ id }) => id)
}

/** The content of an event, independent of its ID. */
const content = ({ type, payload }: LoggedEvent) => `${type} ${JSON.stringify(payload)}`

test('R11: after a failover that lost writes, no event ID and no position is reused', async (t) => {
  const pair = await primaryAndStandby(t, (url) => migrate(url, TEST_REGION))
  const address = await startSwitch(t, pair.primary)
  const env = { PORTOLAN_DATABASE_URL: address.url }
  const node = await testNode(t, { env })
  const other = await testNode(t, { env, sharing: node })
  const relays = [await startRelay(node.region), await startRelay(other.region)]
  t.after(() => Promise.all(relays.map((relay) => relay[Symbol.asyncDispose]())))
  const image = testImage()
  for (const { url } of [node, other]) await ociClient(url).pushImage('team/app', image, 'v0')

  /** Retries each push until it is acknowledged. Returns the positions from the responses. */
  const pushAll = async (name: string): Promise<string[]> => {
    const positions: string[] = []
    for (let n = 0; n < PUSHES; n++) {
      const { url } = n % 2 === 0 ? node : other
      const made: TestImage = testImage({ annotations: { n: `${name}${n}` } }, image.blobs[1])
      await eventually(
        'the push',
        async () => {
          const answer = await ociClient(url).pushManifest('team/app', `v${n}`, made)
          await answer.arrayBuffer()
          if (answer.status === 201) positions.push(answer.headers.get('portolan-position') ?? '')
          else assert.equal(answer.status, 503)
          return answer.status === 201
        },
        PATIENCE_MS,
      )
    }
    return positions
  }
  const logged = async (count: number) => {
    await eventually('the events', async () => (await feed(node)).length === count, PATIENCE_MS)
    return feed(node)
  }
  const start = await eventually('the first events', async () => {
    const events = await feed(node)
    return events.filter(({ type }) => type.endsWith('.push.v1')).length === 2 && events
  })
  await eventually('the standby', () => caughtUp(pair), PATIENCE_MS)
  await cutStreaming(pair)
  const lostPositions = await pushAll('lost')
  const lost = (await logged(start.length + 3 * PUSHES)).slice(start.length)
  const lostIds = await outboxIds(node)

  await execute(pair.standby, 'select pg_promote()')
  address.to(pair.standby)
  const newPositions = await pushAll('new')
  const after = (await logged(start.length + 3 * PUSHES)).slice(start.length)

  const names = new Map(lost.map((event) => [toCloudEvent('eu', event).id, content(event)]))
  const twice = after.filter((event) => {
    const named = names.get(toCloudEvent('eu', event).id)
    return named !== undefined && named !== content(event)
  })
  assert.equal(twice.length, 0, `${twice.length} of ${after.length} event IDs name two events`)
  assert.deepEqual(new Set(lostPositions).intersection(new Set(newPositions)), new Set())
  // The position of a push may name any of its IDs, so none of them may be reused.
  const newIds = (await outboxIds(node)).slice(start.length)
  const repeated = new Set(lostIds.slice(start.length)).intersection(new Set(newIds))
  assert.equal(repeated.size, 0, `${repeated.size} of ${newIds.length} outbox IDs were assigned twice`)
  assert.equal((await regionRow(node.region.db)).epoch, 2, 'raised once, however many processes noticed')
  assert.ok(after.every(({ epoch }) => epoch === 2))
  assert.equal(await sweepsPaused(node.region.db), true)
  const [first = ''] = newPositions
  const read = await fetch(`${node.url}/api/v1/events?after=${first}&types=push`)
  const { events } = (await read.json()) as { events: unknown[] }
  assert.equal(events.length, PUSHES - 1, 'reading after a new position returns what follows its write')
})

test('R11: a running relay on an older copy of the files numbers nothing before it reads the topic', async (t) => {
  const [directory, older] = [await testDirectory(t), await testDirectory(t)]
  {
    await using made = await startEmbeddedPostgres({ directory, settings: UNSAFE_SETTINGS })
    await migrate(made.url, TEST_REGION)
  }
  await copyServer(directory, older)
  const start = async (from: string) => {
    const server = await startEmbeddedPostgres({ directory: from, settings: UNSAFE_SETTINGS })
    t.after(() => server[Symbol.asyncDispose]())
    return server
  }
  const server = await start(directory)
  const copy = await start(older)
  const address = await startSwitch(t, server.url)
  // The brokers are unreachable. The test supplies the end of the topic.
  const env = { PORTOLAN_DATABASE_URL: address.url, PORTOLAN_KAFKA_BROKERS: '127.0.0.1:1' }
  const node = await testNode(t, { env })
  const { db } = node.region
  const ask = (topic: readonly CloudEvent[]) =>
    compareTopic(node.region, { reader: 'kafka', lastEvents: async () => [...topic] })
  await ask([])
  let looks = 0
  const rows = db.rows.bind(db)
  db.rows = async (asked, values) => {
    const found = await rows(asked, values)
    if (asked.name === 'outbox-pending') looks++
    return found
  }
  const relay = await startRelay(node.region)
  t.after(() => relay[Symbol.asyncDispose]())
  const repository = repositoryName('team/app')
  for (const text of ['one', 'two']) await push(db, repository, text, { tags: tags('v1') })
  const before = await eventually('the events', async () => {
    const events = await feed(node)
    return events.length === 6 && events
  })
  const topic = before.map((event) => toCloudEvent('eu', event))

  address.to(copy.url)
  const tryPush = () => push(db, repository, 'three', { tags: tags('v1') })
  await eventually('the push', () => tryPush().then(isPushed, () => false), PATIENCE_MS)
  // A faulty relay would number events before its next check.
  const seen = looks
  await eventually('the relay to check again', () => looks >= seen + 3, PATIENCE_MS)
  await ask(topic.slice(-1))
  const after = await eventually('the events', async () => {
    const events = await feed(node)
    return events.some(({ epoch }) => epoch === 2) && events
  })
  const ids = new Set(topic.map(({ id }) => id))
  const twice = after.filter((event) => ids.has(toCloudEvent('eu', event).id))
  assert.deepEqual(
    twice.map((event) => toCloudEvent('eu', event).id),
    [],
  )
  assert.ok(after.every(({ epoch }) => epoch === 2))
})

const isPushed = ({ kind }: { kind: string }) => kind === 'pushed'
