// A push of 10,000 descriptors and 32 tags. Its list is stored once, and a reader of the log pays for it at most once.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { createLogBus } from '#shared/bus/log-bus.ts'
import { one, statement } from '#shared/db/statement.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { SHARDS } from '#shared/events/event-id.ts'
import { remoteLogPages } from '#shared/peers/remote-log-pages.ts'
import { ownLogPages } from '#shared/registry/log-pages.ts'
import { eventually } from '../../../support/eventually.ts'
import { readWith } from '../../../support/follower.ts'
import { CONFIG, descriptor, IMAGE, manifestOf, sha256, testImage } from '../../../support/image.ts'
import { fillLog, numberOutbox } from '../../../support/log-writer.ts'
import { ociClient } from '../../../support/oci-client.ts'
import { type TestNode, testNode } from '../../../support/region.ts'

const DESCRIPTORS = 9_999
const TAGS = 32
const KEY = 'first-key-of-the-regions-0123456789'
const stored = statement<{ bytes: number; references: number }>(
  'test-stored-facts',
  `select sum(octet_length(payload::text) + coalesce(octet_length(left_out::text), 0)) as bytes,
     count(*) filter (where payload ? 'references') as references
   from event_log where subject like 'team/large%'`,
)

/** The layers are in other places: a manifest may name any number of them. */
async function pushLarge(node: TestNode): Promise<number> {
  const client = ociClient(node.url)
  const config = Buffer.from('{}')
  await client.pushBlob('team/large', config)
  const manifest = manifestOf(IMAGE, {
    config: descriptor(CONFIG, config),
    layers: Array.from({ length: DESCRIPTORS }, (_, n) => ({
      mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
      digest: sha256(String(n)),
      size: n,
    })),
  })
  const tags = Array.from({ length: TAGS }, (_, n) => `tag=v${n}`).join('&')
  const pushed = await client.pushManifest('team/large', `${manifest.digest}?${tags}`, manifest)
  assert.equal(pushed.status, 201, await pushed.text())
  await numberOutbox(node.region)
  return manifest.bytes.length
}

test('the descriptors of a push are stored once, not once for each tag', async (t) => {
  const node = await testNode(t)
  const bytes = await pushLarge(node)
  const kept = await one(node.region.db, stored)
  t.diagnostic(`a manifest of ${bytes} bytes, ${kept.bytes} bytes of events`)
  assert.ok(kept.bytes < 2 * bytes, `${kept.bytes} bytes`)
  assert.equal(kept.references, 1)
  const answer = await fetch(`${node.url}/api/v1/events?types=push,tag.set&repository=team/large`)
  const { events } = (await answer.json()) as { events: CloudEvent[] }
  assert.equal(events.length, TAGS + 1)
  const pages = ownLogPages(node.region)
  const at = Array.from({ length: SHARDS }, (_, shard) => ({ shard, epoch: 1, seq: 0 }))
  const put = (await pages.page(at)).events.find(({ type }) => type.endsWith('.manifest.put.v1'))
  assert.ok(put)
  assert.equal((put.data.references as unknown[]).length, DESCRIPTORS + 1, 'other regions get all of them')
  assert.equal(put.data.abridged, undefined)
  for (const { data } of events) {
    // What receivers of webhooks read.
    assert.deepEqual([data.mediaType, data.size, data.repository], [IMAGE, bytes, 'team/large'])
    assert.match(String(data.digest), /^sha256:/)
  }
})

/** Such a push as an older release logged it: with the descriptors in each event. */
async function setUpOld(t: TestContext) {
  const node = await testNode(t, { env: { PORTOLAN_PEER_KEYS: KEY } })
  await fillLog(node.region, { count: TAGS + 2, filler: 1_700_000 })
  return node
}

test('another region reads past events that together are larger than any answer', async (t) => {
  const node = await setUpOld(t)
  const pages = remoteLogPages({ url: node.url, from: 'us', to: 'eu', key: KEY, waitSeconds: 0 })
  const reader = readWith(createLogBus({ pages, pollMs: 10 }), { group: 'test', idsOnly: true })
  await eventually(
    'all events',
    () => reader.batches.reduce((sum, { events }) => sum + events.length, 0) === TAGS + 2,
    30_000,
  )
  await reader[Symbol.asyncDispose]()
})

test('a page of one event is as small as one event, and 500 streams get past large ones', async (t) => {
  const node = await setUpOld(t)
  const first = await fetch(`${node.url}/api/v1/events?limit=1`)
  const body = await first.text()
  assert.ok(body.length < 3_000, `${body.length} bytes`)
  const { events, next } = JSON.parse(body) as { events: CloudEvent[]; next: string }
  assert.deepEqual([events.length, next, events[0]?.data.abridged], [1, 'eu:1:1', true])
  assert.deepEqual(events[0]?.data.references, [])
  await ociClient(node.url).pushImage('team/app', testImage(), 'v1')
  await numberOutbox(node.region)
  const beforeBytes = process.memoryUsage().rss
  const abort = new AbortController()
  const frames = await Promise.all(
    Array.from({ length: 500 }, async () => {
      const answer = await fetch(`${node.url}/api/v1/events?after=eu:1:0`, {
        headers: { Accept: 'text/event-stream' },
        signal: abort.signal,
      })
      let text = ''
      const decoder = new TextDecoder()
      for await (const chunk of answer.body ?? []) {
        text += decoder.decode(chunk, { stream: true })
        if (
          text.includes('event: dev.portolan.registry.push.v1\ndata: {"specversion":"1.0"') &&
          text.includes('team/app@')
        )
          return text.match(/^id: /gm)?.length ?? 0
      }
      return 0
    }),
  )
  const grownBytes = process.memoryUsage().rss - beforeBytes
  abort.abort()
  t.diagnostic(`500 streams: ${Math.round(grownBytes / 1e6)} MB, their readers included`)
  assert.ok(frames.every((count) => count >= TAGS + 2))
  assert.ok(grownBytes < 500e6, `${grownBytes} bytes`)
})
