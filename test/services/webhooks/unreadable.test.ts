// Webhooks that are changed, removed and damaged concurrently. A webhook is complete or gone, and an unreadable webhook
// affects no other.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { dropOrphanDeliveries, planDeliveries, waitingDeliveries } from '#shared/db/webhook-deliveries.ts'
import { subscription } from '#shared/webhooks/subscriptions.ts'
import { signingSecrets } from '#shared/webhooks/webhook.ts'
import { startRelay } from '../../../services/relay/service.ts'
import { startWebhooks } from '../../../services/webhooks/service.ts'
import { eventually } from '../../support/eventually.ts'
import { testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { execute } from '../../support/postgres.ts'
import { type TestNode, testNode } from '../../support/region.ts'

const image = testImage()
const ROUNDS = 60

async function setUp(t: TestContext, node?: TestNode) {
  const known = node ?? (await testNode(t))
  const relay = await startRelay(known.region)
  const service = await startWebhooks(known.region)
  const dispose = known.region[Symbol.asyncDispose].bind(known.region)
  known.region[Symbol.asyncDispose] = async () => {
    await service[Symbol.asyncDispose]()
    await relay[Symbol.asyncDispose]()
    await dispose()
  }
  const client = ociClient(known.url)
  const api = async (method: string, path: string, body?: unknown) => {
    const answer = await client.request(method, `/api/v1/webhooks${path}`, {
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    // biome-ignore lint/suspicious/noExplicitAny: what a test expects it says right after
    return { status: answer.status, body: (text === '' ? undefined : JSON.parse(text)) as any }
  }
  const add = async (webhook: Record<string, unknown>): Promise<string> => {
    const { status, body } = await api('POST', '', { allowPrivate: true, ...webhook })
    assert.equal(status, 201, JSON.stringify(body))
    return body.id
  }
  const sql = (text: string) => execute(known.region.databaseUrl, text)
  await eventually('the planner to have begun', async () => {
    const rows = await known.region.db.rows({
      name: 'test-cursor',
      text: 'select from event_cursor',
      parameters: [],
    })
    return rows.length === 1
  })
  return { node: known, client, api, add, sql }
}

async function receiver(t: TestContext) {
  const bodies: string[] = []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString()
    })
    request.on('end', () => {
      bodies.push(body)
      response.end()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.closeAllConnections())
  t.after(() => server.close())
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, bodies }
}

/** Returns a function that counts the reads of the subscriptions since this call. */
function countLooks({ region: { db } }: TestNode): () => number {
  const rows = db.rows.bind(db)
  let looks = 0
  db.rows = (statement, values) => {
    if (statement.name === 'read-settings') looks++
    return rows(statement, values)
  }
  return () => looks
}

test(`${ROUNDS} rounds of concurrent PATCH and DELETE leave no webhook behind, and the list still works`, async (t) => {
  const { api, add } = await setUp(t)
  let changed = 0
  for (let round = 0; round < ROUNDS; round++) {
    const id = await add({ url: 'http://127.0.0.1:9/hook' })
    const change = (n: number) =>
      api('PATCH', `/${id}`, { headers: { 'X-Round': String(n) }, ordered: n % 2 === 0 })
    const answers = await Promise.all([change(1), change(2), api('DELETE', `/${id}`), change(3), change(4)])
    assert.equal(answers[2]?.status, 204)
    for (const [index, { status }] of answers.entries()) {
      if (index === 2) continue
      assert.ok(status === 200 || status === 404, `round ${round}: ${status}`)
      if (status === 200) changed++
    }
    const list = await api('GET', '')
    assert.equal(list.status, 200, `round ${round}`)
    assert.deepEqual(list.body.webhooks, [], `round ${round}: the webhook came back`)
    assert.deepEqual(list.body.unreadable, [])
    assert.equal((await api('GET', `/${id}`)).status, 404)
  }
  t.diagnostic(`${changed} changes preceded the delete`)
})

test('concurrent changes are all applied, and two concurrent new secrets both sign', async (t) => {
  const { node, api, add } = await setUp(t)
  const id = await add({ url: 'http://127.0.0.1:9/hook' })
  const secret = (n: number) => `whsec_${Buffer.alloc(32, n).toString('base64')}`
  await Promise.all([
    api('PATCH', `/${id}`, { secret: secret(1) }),
    api('PATCH', `/${id}`, { secret: secret(2) }),
    api('PATCH', `/${id}`, { ordered: true }),
    api('PATCH', `/${id}`, { types: ['push'] }),
  ])
  const { body } = await api('GET', `/${id}`)
  assert.deepEqual([body.ordered, body.types], [true, ['dev.portolan.registry.push.v1']])
  const found = await subscription(node.region, id)
  assert.ok('webhook' in found)
  const signing = signingSecrets(found.webhook, Date.now())
  assert.deepEqual(signing.toSorted(), [secret(1), secret(2)].toSorted())
})

test('a webhook with missing fields is listed, logged once, skipped and removable; others are served', async (t) => {
  const { node, client, api, add, sql } = await setUp(t)
  const to = await receiver(t)
  await add({ url: to.url })
  const broken = await add({ url: 'http://127.0.0.1:9/hook' })
  await sql(
    `update setting set deleted = true, value = null where id = '${broken}' and field in ('url', 'types')`,
  )
  await client.pushImage('team/app', image, 'v1')
  await eventually('the push to reach the other webhook', () => to.bodies.length === 1)
  const list = await api('GET', '')
  assert.equal(list.status, 200)
  assert.equal(list.body.webhooks.length, 1)
  assert.deepEqual(list.body.unreadable, [{ id: broken, problem: 'url is missing; types is missing' }])
  assert.deepEqual((await api('GET', `/${broken}`)).body, list.body.unreadable[0])
  const lines = () => node.logLines.filter((line) => line.includes(broken) && line.includes('cannot be read'))
  await eventually('the problem to be logged', () => lines().length === 1)
  const looks = countLooks(node)
  await eventually('two more reads of the subscriptions', () => looks() >= 2)
  for (const tag of ['v2', 'v3']) await client.pushManifest('team/app', tag, image)
  await eventually('the other deliveries', () => to.bodies.length === 3)
  assert.equal(lines().length, 1, 'one line for each change, not one for each check')
  assert.equal((await api('POST', `/${broken}/replay`, { after: 'eu:1:0' })).status, 400)
  assert.equal((await api('PATCH', `/${broken}`, { ordered: true })).status, 400)
  assert.equal((await api('GET', `/${broken}/deliveries`)).status, 200)
  assert.equal((await api('DELETE', `/${broken}`)).status, 204)
  assert.deepEqual((await api('GET', '')).body.unreadable, [])
  await eventually('its removal to be logged', () =>
    node.logLines.some((line) => line.includes('repaired or removed')),
  )
})

test('a change that sets every invalid field repairs a webhook', async (t) => {
  const { client, api, add, sql } = await setUp(t)
  const to = await receiver(t)
  const id = await add({ url: 'http://127.0.0.1:9/hook' })
  await sql(
    `update setting set deleted = true, value = null where id = '${id}' and field in ('url', 'secret')`,
  )
  const half = await api('PATCH', `/${id}`, { url: to.url })
  assert.equal(half.status, 400)
  assert.match(half.body.errors[0].message, /secret is missing/)
  const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`
  assert.equal((await api('PATCH', `/${id}`, { url: to.url, secret })).status, 200)
  await client.pushImage('team/app', image, 'v1')
  await eventually('the push', () => to.bodies.length === 1)
})

test('an object without an existence register, as older releases write it, exists and can be removed', async (t) => {
  const { api, add, sql } = await setUp(t)
  const id = await add({ url: 'http://127.0.0.1:9/hook' })
  await sql(`delete from setting where id = '${id}' and field = ''`)
  assert.equal((await api('GET', '')).body.webhooks.length, 1)
  assert.equal((await api('PATCH', `/${id}`, { ordered: true })).status, 200)
  assert.equal((await api('DELETE', `/${id}`)).status, 204)
  assert.equal((await api('GET', `/${id}`)).status, 404)
})

test('pending deliveries of a removed webhook are dropped; those of an unreadable webhook are kept', async (t) => {
  const { node, add, sql } = await setUp(t)
  const { db } = node.region
  const broken = await add({ url: 'http://127.0.0.1:9/hook' })
  await sql(`update setting set deleted = true, value = null where id = '${broken}' and field = 'url'`)
  const gone = '00000000-0000-4000-8000-000000000009'
  const deliveries = [gone, broken].map((subscription) => ({
    id: `x.${subscription}`,
    subscription,
    repository: 'a',
    event: {},
  }))
  await planDeliveries(db, { deliveries, giveUpSeconds: 60 })
  await dropOrphanDeliveries(db, 100)
  assert.deepEqual(
    (await waitingDeliveries(db)).map(({ subscription: of }) => of),
    [broken],
  )
})
