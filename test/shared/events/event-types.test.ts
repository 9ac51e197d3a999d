// Every event that a registry writes fits the published schema of its type, and so does every event of earlier
// releases: files in test/contract/events/ are only ever added.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { type LoggedEvent, readEvents } from '#shared/db/event-log.ts'
import { type CloudEvent, toCloudEvent } from '#shared/events/cloud-event.ts'
import { eventSchema, eventTypes, TYPE_PREFIX } from '#shared/events/event-types.ts'
import { WEBHOOK_FORMATS } from '#shared/webhooks/webhook.ts'
import { webhookMessage } from '#shared/webhooks/webhook-message.ts'
import { startRelay } from '../../../services/relay/service.ts'
import { eventually } from '../../support/eventually.ts'
import { sha256, testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { testNode } from '../../support/region.ts'

const ajv = new Ajv2020({ strict: true, allErrors: true })
const validators = new Map(
  Object.keys(eventTypes).map((name) => [TYPE_PREFIX + name, ajv.compile(eventSchema(name) ?? {})]),
)
const corpus = join(import.meta.dirname, '../../contract/events')

function complaints({ type, data }: Pick<CloudEvent, 'type' | 'data'>): string[] {
  const validate = validators.get(type)
  if (validate === undefined) return [`${type} has no schema`]
  return validate(data) ? [] : [`${type}: ${ajv.errorsText(validate.errors)}`]
}

/** Written when regions disagreed: test/shared/replication/apply.test.ts has them written. */
const OF_SEVERAL_REGIONS = new Set(
  ['tag.conflict', 'delete.conflict'].map((type) => `${TYPE_PREFIX}${type}.v1`),
)

test('every write of a registry is an event of a published type that fits its schema', async (t) => {
  const node = await testNode(t, { env: { PORTOLAN_EVENTS_PULL_SECONDS: '1' } })
  const relay = await startRelay(node.region)
  const client = ociClient(node.url)
  const image = testImage({}, randomBytes(50))
  const [blob = Buffer.alloc(0)] = image.blobs
  await client.pushImage('team/app', image, 'v1')
  await client.pushManifest('team/app', 'v2', image)
  await client.request('GET', '/v2/team/app/manifests/v1')
  await client.request('POST', `/v2/team/other/blobs/uploads/?mount=${sha256(blob)}&from=team/app`)
  await client.request('POST', '/api/v1/webhooks', { body: JSON.stringify({ url: 'https://hook.example/' }) })
  await client.request('DELETE', `/v2/team/other/blobs/${sha256(blob)}`)
  await client.request('DELETE', '/v2/team/app/manifests/v2')
  await client.request('DELETE', `/v2/team/app/manifests/${image.digest}`)
  await client.request('DELETE', '/api/v1/repositories/team/app')
  const read = () => readEvents(node.region.db, { after: { epoch: 1, pos: 0 }, limit: 1_000 })
  let events: LoggedEvent[] = []
  await eventually('the last event', async () => {
    events = await read()
    const types = events.map(({ type }) => type.slice(TYPE_PREFIX.length))
    return types.includes('repository.deleted.v1') && types.includes('pull.v1')
  })
  const problems = events.flatMap((event) => complaints(toCloudEvent('eu', event)))
  assert.deepEqual(problems, [])
  assert.deepEqual(
    new Set(events.map(({ type }) => type)),
    new Set(validators.keys()).difference(OF_SEVERAL_REGIONS),
    'each type was written',
  )
  const listed = (await (await fetch(`${node.url}/api/v1/schemas`)).json()) as { types: { schema: string }[] }
  for (const { schema } of listed.types) {
    const served = await fetch(node.url + schema)
    assert.equal(served.headers.get('content-type'), 'application/schema+json')
    assert.equal(((await served.json()) as { $id: string }).$id, schema)
  }
  assert.equal((await fetch(`${node.url}/api/v1/schemas/${TYPE_PREFIX}nothing.v1.json`)).status, 404)
  await relay[Symbol.asyncDispose]()
})

test('R5: every event of earlier releases still fits, and converts to every format', async () => {
  const files = await readdir(corpus)
  const told = new Set<string>()
  for (const file of files) {
    const event = JSON.parse(await readFile(join(corpus, file), 'utf8')) as CloudEvent
    told.add(event.type)
    assert.deepEqual(complaints(event), [], file)
    for (const format of WEBHOOK_FORMATS) assert.ok(webhookMessage(format, event).body.length > 0)
  }
  assert.deepEqual(told, new Set(validators.keys()), 'each type has an example')
})

test('the check detects an event that lost a field, and a type without a schema', () => {
  const data = {
    repository: 'a',
    digest: `sha256:${'0'.repeat(64)}`,
    size: 1,
    actor: { name: '' },
    request: {},
    instance: 'i',
  }
  assert.deepEqual(complaints({ type: `${TYPE_PREFIX}blob.uploaded.v1`, data }), [])
  const { size: _size, ...less } = data
  assert.equal(complaints({ type: `${TYPE_PREFIX}blob.uploaded.v1`, data: less }).length, 1)
  assert.equal(complaints({ type: `${TYPE_PREFIX}blob.uploaded.v2`, data }).length, 1)
})
