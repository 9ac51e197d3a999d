// The feed: pages and streams of the event log over HTTP.
// tests: shared/db/event-log.ts, shared/db/pull-events.ts

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import bcrypt from 'bcrypt'
import { trimEvents } from '#shared/db/event-log.ts'
import { statement } from '#shared/db/statement.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { startRelay } from '../../../../services/relay/service.ts'
import { eventually } from '../../../support/eventually.ts'
import { testImage } from '../../../support/image.ts'
import { numberOutbox } from '../../../support/log-writer.ts'
import { ociClient } from '../../../support/oci-client.ts'
import { testDirectory, testNode } from '../../../support/region.ts'

interface Page {
  events: CloudEvent[]
  next: string
}

async function setUp(t: TestContext, env: Record<string, string> = {}) {
  const node = await testNode(t, { env })
  const relay = await startRelay(node.region)
  const dispose = node.region[Symbol.asyncDispose].bind(node.region)
  node.region[Symbol.asyncDispose] = async () => {
    await relay[Symbol.asyncDispose]()
    await dispose()
  }
  const page = async (query: string, headers: Record<string, string> = {}) => {
    const answer = await fetch(`${node.url}/api/v1/events?${query}`, { headers })
    return {
      status: answer.status,
      body: (await answer.json()) as Page & { errors: { code: string; detail: unknown }[] },
    }
  }
  return { node, page }
}

/** Reads frames of a stream as they arrive. */
async function listen(url: string, headers: Record<string, string> = {}) {
  const abort = new AbortController()
  const answer = await fetch(url, {
    headers: { Accept: 'text/event-stream', ...headers },
    signal: abort.signal,
  })
  const frames: Record<string, string>[] = []
  const reading = (async () => {
    let text = ''
    for await (const chunk of answer.body ?? []) {
      text += Buffer.from(chunk).toString()
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        const lines = text
          .slice(0, end)
          .split('\n')
          .filter((line) => !line.startsWith(':'))
        if (lines.length > 0)
          frames.push(Object.fromEntries(lines.map((line) => line.split(/: (.*)/s) as [string, string])))
        text = text.slice(end + 2)
      }
    }
  })().catch(() => {})
  return {
    status: answer.status,
    frames,
    async stop() {
      abort.abort()
      await reading
    },
  }
}

const short = ({ type }: { type: string }) => type.replace(/^dev\.portolan\.registry\./, '')

const image = testImage()

test('a push is seen in pages: CloudEvents in order, by type, by repository, from its own position', async (t) => {
  const { node, page } = await setUp(t)
  const client = ociClient(node.url)
  await client.pushImage('team/app', image, 'v1')
  await client.pushImage('other/app', image, 'v1')
  const pushed = await client.pushManifest('team/app', 'v2', image)
  const position = pushed.headers.get('portolan-position') ?? ''
  assert.match(position, /^eu:1:o\d+$/)
  await eventually('the last event', async () => (await page(`after=${position}`)).status === 200)

  const { body: all } = await page('')
  const types = all.events.map(short)
  assert.ok(
    types.includes('blob.uploaded.v1') && types.includes('manifest.put.v1') && types.includes('push.v1'),
  )
  assert.deepEqual(
    all.events.map(({ position: at }) => at),
    all.events.map((_, index) => `eu:1:${index + 1}`),
  )
  assert.equal(all.next, all.events.at(-1)?.position)
  const [first] = all.events
  assert.equal(first?.specversion, '1.0')
  assert.match(first?.id ?? '', /^eu:1:[0-7]:1$/)
  assert.equal(first?.source, '/regions/eu')
  assert.equal((first?.data.request as { method: string } | undefined)?.method, 'PUT')

  const { body: tagged } = await page('types=tag.set&repository=team/*')
  assert.deepEqual(
    tagged.events.map(({ subject }) => subject),
    ['team/app:v1', 'team/app:v2'],
  )
  assert.equal(tagged.next, all.next, 'the position moves on past what the filter left out')
  assert.deepEqual((await page('types=nothing')).body.events, [])
  assert.equal((await page('types=nothing')).body.next, all.next)
  const two = (await page('limit=2')).body
  assert.deepEqual([two.events.length, two.next], [2, 'eu:1:2'])
  assert.equal((await page(`after=${two.next}&limit=1`)).body.events[0]?.position, 'eu:1:3')
  const behind = (await page(`after=${position}`)).body
  assert.deepEqual(behind.events, [], 'nothing comes after the last write')
})

test('wrong positions and limits are told; who comes too late learns where the log begins', async (t) => {
  const { node, page } = await setUp(t)
  await ociClient(node.url).pushImage('team/app', image, 'v1')
  await eventually('the events', async () => (await page('types=push')).body.events.length === 1)
  for (const query of [
    'after=us:1:1',
    'after=eu:1',
    'after=eu:1:99999',
    'after=eu:9:1',
    'after=eu:1:o0',
    'after=eu:1:o999999',
    'after=eu:9:o1',
    'limit=0',
    'limit=1001',
    'limit=x',
  ]) {
    const { status, body } = await page(query)
    assert.deepEqual([status, body.errors[0]?.code], [400, 'REQUEST_INVALID'], query)
  }
  await trimEvents(node.region.db, { retentionSeconds: 0, readerSeconds: 60, limit: 2 })
  const late = await page('after=eu:1:1')
  assert.deepEqual([late.status, late.body.errors[0]?.code], [410, 'POSITION_GONE'])
  assert.deepEqual(late.body.errors[0]?.detail, { oldest: 'eu:1:2' })
  assert.equal((await page('after=eu:1:2')).body.events[0]?.position, 'eu:1:3')
  const posted = await fetch(`${node.url}/api/v1/events`, { method: 'POST' })
  assert.deepEqual([posted.status, posted.headers.get('allow')], [405, 'GET, HEAD'])
})

test("a write's position is 503 until it is numbered, leads on while its event is kept, and is 410 from then on", async (t) => {
  const node = await testNode(t)
  const { db } = node.region
  const client = ociClient(node.url)
  const read = async (position: string) => {
    const answer = await fetch(`${node.url}/api/v1/events?after=${position}`)
    const body = (await answer.json()) as Page & { errors?: { code: string; detail: unknown }[] }
    return { status: answer.status, retryAfter: answer.headers.get('retry-after'), ...body }
  }
  await client.pushImage('team/app', image, 'v1')
  const pushed = await client.pushManifest('team/app', 'v2', image)
  const position = pushed.headers.get('portolan-position') ?? ''
  const waiting = await read(position)
  assert.deepEqual([waiting.status, waiting.retryAfter], [503, '1'])
  await numberOutbox(node.region)
  assert.deepEqual((await read(position)).events, [])
  const trimAll = () => trimEvents(db, { retentionSeconds: 0, readerSeconds: 60, limit: 1_000 })
  await trimAll()
  for (const when of ['while the log is empty', 'with a later event']) {
    const gone = await read(position)
    assert.deepEqual([gone.status, gone.errors?.[0]?.code], [410, 'POSITION_GONE'], when)
    const [, epoch, outbox = ''] = position.split(':')
    const never = `eu:${epoch}:o${Number(outbox.slice(1)) + 100}`
    assert.equal((await read(never)).status, 400, when)
    await client.pushManifest('team/app', 'v3', image)
    await numberOutbox(node.region)
  }
  // The oldest position in the error is valid for reading.
  const [error = assert.fail()] = (await read(position)).errors ?? []
  const { oldest } = error.detail as { oldest: string }
  assert.equal((await read(oldest)).events.length, 6)
})

test('a reader that the trimming overtakes is told, and gets no page with a hole', async (t) => {
  const { node, page } = await setUp(t)
  const { db } = node.region
  await ociClient(node.url).pushImage('team/app', image, 'v1')
  await eventually('the push', async () => (await page('types=push')).body.events.length === 1)
  const rows = db.rows.bind(db)
  db.rows = async (asked, values) => {
    // Runs between the query for the start of the log and the query for the page.
    if (asked.name === 'read-events')
      await trimEvents(db, { retentionSeconds: 0, readerSeconds: 60, limit: 2 })
    return rows(asked, values)
  }
  const late = await page('after=eu:1:0')
  assert.deepEqual([late.status, late.body.errors?.[0]?.code], [410, 'POSITION_GONE'])
})

test('after the epoch was raised, positions of before lead on: none of them lies beyond the end', async (t) => {
  const { node, page } = await setUp(t)
  const client = ociClient(node.url)
  await client.pushImage('team/app', image, 'v1')
  await eventually('the push', async () => (await page('types=push')).body.events.length === 1)
  await node.region.db.rows(statement('test-raise-in-feed', 'update region set epoch = 2'))
  // Assigned by a server that was lost.
  assert.deepEqual((await page('after=eu:1:1000')).body.events, [])
  assert.equal((await page('after=eu:1:o1000')).status, 410, 'nobody knows where this write was')
  await client.pushManifest('team/app', 'v2', image)
  await eventually('the new push', async () => (await page('types=push')).body.events.length === 2)
  const { events } = (await page('after=eu:1:1000')).body
  assert.deepEqual([...new Set(events.map(({ position }) => position.split(':')[1]))], ['2'])
  assert.equal((await page('after=eu:2:4')).status, 400)
})

test('a stream brings what comes, goes on at Last-Event-ID, filters, and many listeners share one reader', async (t) => {
  const { node, page } = await setUp(t)
  const client = ociClient(node.url)
  await client.pushImage('team/app', image, 'v1')
  await eventually('the events', async () => (await page('types=push')).body.events.length === 1)
  const url = `${node.url}/api/v1/events?types=push`
  const fresh = await listen(url)
  assert.equal(fresh.status, 200)
  await client.pushManifest('team/app', 'v2', image)
  await eventually('the new push', () => fresh.frames.length === 1)
  const [frame] = fresh.frames
  assert.equal(frame?.event, 'dev.portolan.registry.push.v1')
  assert.equal((JSON.parse(frame?.data ?? '{}') as CloudEvent).position, frame?.id)
  await fresh.stop()

  await client.pushManifest('team/app', 'v3', image)
  const again = await listen(url, { 'Last-Event-ID': frame?.id ?? '' })
  await eventually('what was missed', () => again.frames.length === 1)
  const begun = await listen(`${url}&after=eu:1:0`)
  await eventually('everything', () => begun.frames.length === 3)
  const many = await Promise.all(Array.from({ length: 100 }, () => listen(url)))
  await client.pushManifest('team/app', 'v4', image)
  await eventually('everybody to see it', () => many.every(({ frames }) => frames.length === 1))
  await eventually('the others too', () => again.frames.length === 2 && begun.frames.length === 4)
  for (const listener of [again, begun, ...many]) await listener.stop()
  const late = await listen(`${url}&after=eu:1:12345`)
  assert.equal(late.status, 400)
  await late.stop()
})

test('500 idle readers cost the database what one does, and all of them hear of a push', async (t) => {
  const { node } = await setUp(t)
  const { reads: db } = node.region
  const rows = db.rows.bind(db)
  let reads = 0
  db.rows = (statement, values) => {
    if (statement.name === 'read-events') reads++
    return rows(statement, values)
  }
  const readsIn = async (ms: number) => {
    const before = reads
    await new Promise((resolve) => setTimeout(resolve, ms))
    return reads - before
  }
  const url = `${node.url}/api/v1/events?types=push`
  const first = await listen(url)
  const ofOne = await readsIn(1_000)
  const many = await Promise.all(Array.from({ length: 499 }, () => listen(url)))
  await readsIn(500)
  const ofAll = await readsIn(1_000)
  t.diagnostic(`${ofOne} reads a second for one, ${ofAll} for 500`)
  // One query per tick of 50 ms, regardless of the number of listeners.
  assert.ok(ofOne > 0 && ofOne <= 21 && ofAll > 0 && ofAll <= 21)
  await ociClient(node.url).pushImage('team/app', image, 'v1')
  await eventually('everybody to see it', () => [first, ...many].every(({ frames }) => frames.length === 1))
  await Promise.all([first, ...many].map((listener) => listener.stop()))
  await eventually('nobody to be asked for', async () => (await readsIn(200)) === 0)
})

test('pulls are events when asked for: counted, and never for a HEAD or what was not there', async (t) => {
  const { node, page } = await setUp(t, { PORTOLAN_EVENTS_PULL_SECONDS: '1' })
  const client = ociClient(node.url)
  const digest = await client.pushImage('team/app', image, 'v1')
  for (let n = 0; n < 20; n++) await client.request('GET', '/v2/team/app/manifests/v1')
  for (let n = 0; n < 3; n++) await client.request('GET', `/v2/team/app/manifests/${image.digest}`)
  await client.request('HEAD', '/v2/team/app/manifests/v1')
  await client.request('GET', '/v2/team/app/manifests/v2')
  const pulls = async () => (await page('types=pull')).body.events
  const total = async () => (await pulls()).reduce((sum, { data }) => sum + Number(data.count), 0)
  await eventually('the pulls', async () => (await total()) === 23)
  const events = await pulls()
  assert.ok(events.length <= 4, `${events.length} events for 23 pulls`)
  assert.deepEqual([...new Set(events.map(({ data }) => data.tag))].toSorted(), ['v1', undefined])
  assert.equal(events[0]?.partitionkey, 'team/app')
  void digest
})

test('a reader sees what it may pull, and nobody without rights sees anything', async (t) => {
  const htpasswd = join(await testDirectory(t), 'htpasswd')
  await writeFile(htpasswd, `alice:${await bcrypt.hash('secret', 4)}\n`)
  const { node, page } = await setUp(t, { PORTOLAN_AUTH: 'accounts', PORTOLAN_HTPASSWD_FILE: htpasswd })
  const alice = { Authorization: `Basic ${btoa('alice:secret')}` }
  const client = ociClient(node.url, alice.Authorization)
  await client.pushImage('team/app', image, 'v1')
  await client.pushImage('other/app', image, 'v1')
  await eventually('both pushes', async () => (await page('types=push', alice)).body.events.length === 2)
  assert.equal((await page('')).status, 401)
  assert.equal((await page('', { Authorization: `Basic ${btoa('alice:wrong')}` })).status, 401)
  const answer = await fetch(`${node.url}/token?scope=repository:team/app:pull`, { headers: alice })
  const { token } = (await answer.json()) as { token: string }
  const seen = (await page('types=push', { Authorization: `Bearer ${token}` })).body
  assert.deepEqual(
    seen.events.map(({ partitionkey }) => partitionkey),
    ['team/app'],
  )
})
