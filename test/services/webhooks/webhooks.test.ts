// Webhooks from a push to a receiver: formats, signatures, retries, order, parking, and the API for them.
// tests: shared/db/own-readers.ts, shared/db/settings.ts, shared/db/webhook-deliveries.ts
// tests: shared/webhooks/subscriptions.ts

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import bcrypt from 'bcrypt'
import { Webhook as StandardWebhook } from 'standardwebhooks'
import { startRelay } from '../../../services/relay/service.ts'
import { waitSeconds } from '../../../services/webhooks/deliver.ts'
import { startWebhooks } from '../../../services/webhooks/service.ts'
import { eventually } from '../../support/eventually.ts'
import { testImage } from '../../support/image.ts'
import { type OciClient, ociClient } from '../../support/oci-client.ts'
import { testDirectory, testNode } from '../../support/region.ts'

interface Received {
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** Responds with the status that `answer` returns, or never. */
async function receiver(
  t: TestContext,
  answer: (received: Received, count: number) => number | 'never' = () => 200,
) {
  const received: Received[] = []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString()
    })
    request.on('end', () => {
      const one = { headers: request.headers, body }
      received.push(one)
      const status = answer(one, received.length)
      if (status !== 'never') response.writeHead(status).end(`answer ${status}`)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.closeAllConnections())
  t.after(() => server.close())
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, received }
}

const image = testImage()

async function setUp(t: TestContext, env: Record<string, string> = {}) {
  const node = await testNode(t, { env: { PORTOLAN_WEBHOOK_RETRY_SECONDS: '1', ...env } })
  const relay = await startRelay(node.region)
  let service = await startWebhooks(node.region)
  const dispose = node.region[Symbol.asyncDispose].bind(node.region)
  node.region[Symbol.asyncDispose] = async () => {
    await service[Symbol.asyncDispose]()
    await relay[Symbol.asyncDispose]()
    await dispose()
  }
  const client = ociClient(node.url)
  const api = async (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) => {
    const answer = await client.request(method, `/api/v1/webhooks${path}`, {
      headers,
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    // biome-ignore lint/suspicious/noExplicitAny: what a test expects it says right after
    return { status: answer.status, body: (text === '' ? undefined : JSON.parse(text)) as any }
  }
  const add = async (webhook: Record<string, unknown>) => {
    const { status, body } = await api('POST', '', { allowPrivate: true, ...webhook })
    assert.equal(status, 201, JSON.stringify(body))
    return body as { id: string; secret: string }
  }
  // The planner begins at the end of the log. It plans nothing for events before that point.
  await eventually('the planner to have begun', async () => {
    const { rows } = {
      rows: await node.region.db.rows({
        name: 'test-cursor',
        text: 'select 1 from event_cursor',
        parameters: [],
      }),
    }
    return rows.length === 1
  })
  return {
    node,
    client,
    api,
    add,
    restart: async () => {
      await service[Symbol.asyncDispose]()
      service = await startWebhooks(node.region)
    },
    stop: () => service[Symbol.asyncDispose](),
  }
}

async function pushTag(client: OciClient, repository: string, tag: string): Promise<void> {
  const pushed = await client.pushManifest(repository, tag, image)
  assert.equal(pushed.status, 201, await pushed.text())
}

test('a push reaches receivers in all three formats, and standardwebhooks verifies the signature', async (t) => {
  const { client, add } = await setUp(t)
  const formats = ['distribution', 'cloudevents', 'cloudevents-binary'] as const
  const hooks = await Promise.all(
    formats.map(async (format) => {
      const to = await receiver(t)
      return { format, to, ...(await add({ url: to.url, format, headers: { 'X-Token': 'own' } })) }
    }),
  )
  await client.pushImage('team/app', image, 'v1')
  for (const { format, to, id, secret } of hooks) {
    await eventually(`${format} to arrive`, () => to.received.length === 1)
    const [one] = to.received
    assert.ok(one)
    const verified = new StandardWebhook(secret).verify(one.body, one.headers as Record<string, string>)
    assert.ok(verified)
    assert.throws(() =>
      new StandardWebhook(secret).verify(`${one.body} `, one.headers as Record<string, string>),
    )
    assert.match(String(one.headers['webhook-id']), new RegExp(`^eu:1:[0-7]:[0-9]+\\.${id}$`))
    assert.equal(one.headers['x-token'], 'own')
    const body = JSON.parse(one.body)
    if (format === 'distribution') {
      assert.equal(one.headers['content-type'], 'application/vnd.docker.distribution.events.v2+json')
      const [event] = body.events
      assert.equal(event.action, 'push')
      assert.deepEqual(
        [
          event.target.repository,
          event.target.tag,
          event.target.digest,
          event.target.mediaType,
          event.target.length,
        ],
        ['team/app', 'v1', image.digest, image.mediaType, image.bytes.length],
      )
      assert.equal(event.request.method, 'PUT')
      const followed = await fetch(event.target.url)
      assert.equal(followed.status, 200, 'the URL resolves to the manifest')
    } else if (format === 'cloudevents') {
      assert.match(String(one.headers['content-type']), /^application\/cloudevents\+json/)
      assert.deepEqual(
        [body.specversion, body.type, body.data.tags],
        ['1.0', 'dev.portolan.registry.push.v1', ['v1']],
      )
    } else {
      assert.equal(one.headers['ce-type'], 'dev.portolan.registry.push.v1')
      assert.equal(one.headers['ce-specversion'], '1.0')
      assert.deepEqual(body.tags, ['v1'])
    }
  }
})

test('types and repositories filter events; a disabled or removed webhook receives nothing', async (t) => {
  const { client, add, api } = await setUp(t)
  const to = await receiver(t)
  const { id } = await add({
    url: to.url,
    format: 'cloudevents',
    types: ['tag.set'],
    repositories: ['team/*'],
  })
  await client.pushImage('other/app', image, 'v1')
  await client.pushImage('team/app', image, 'v1')
  await eventually('one event', () => to.received.length === 1)
  assert.equal(JSON.parse(to.received[0]?.body ?? '').subject, 'team/app:v1')
  assert.equal((await api('PATCH', `/${id}`, { enabled: false })).status, 200)
  await new Promise((turn) => setTimeout(turn, 1_100))
  await pushTag(client, 'team/app', 'v2')
  assert.equal((await api('DELETE', `/${id}`)).status, 204)
  assert.equal((await api('GET', `/${id}`)).status, 404)
  await pushTag(client, 'team/app', 'v3')
  const witness = await receiver(t)
  await add({ url: witness.url })
  await new Promise((turn) => setTimeout(turn, 1_100))
  await pushTag(client, 'team/app', 'v4')
  // A push made just before the webhook was created may still be delivered to it.
  await eventually('the witness', () => witness.received.some(({ body }) => body.includes('"v4"')))
  assert.equal(to.received.length, 1)
})

test('a failed delivery is retried under the same ID; a dead or slow receiver does not delay others', async (t) => {
  const { client, add, api } = await setUp(t, { PORTOLAN_WEBHOOK_TIMEOUT_SECONDS: '2' })
  const dead = await receiver(t, () => 'never')
  const flaky = await receiver(t, (_one, count) => (count <= 2 ? 503 : 200))
  const fine = await receiver(t)
  await add({ url: dead.url })
  const { id } = await add({ url: flaky.url })
  await add({ url: fine.url })
  await client.pushImage('team/app', image, 'v0')
  await eventually('the flaky receiver', () => flaky.received.length === 3)
  const ids = new Set(flaky.received.map(({ headers }) => headers['webhook-id']))
  assert.equal(ids.size, 1)
  await eventually('the delivery to be listed as delivered', async () => {
    const { body } = await api('GET', `/${id}/deliveries`)
    const [one] = body.deliveries
    return (
      one.state === 'delivered' && one.attempts === 3 && one.status === 200 && one.answer === 'answer 200'
    )
  })
  for (let tag = 1; tag <= 30; tag++) await pushTag(client, 'team/app', `v${tag}`)
  await eventually('all deliveries to reach the healthy receiver', () => fine.received.length === 31)
  assert.ok(dead.received.length <= 16, 'the dead receiver has its own concurrency limit')
})

test('an ordered stream keeps the order of each repository and continues after a parked delivery', async (t) => {
  const { client, add, api } = await setUp(t, { PORTOLAN_WEBHOOK_GIVE_UP_SECONDS: '1' })
  const tagOf = ({ body }: Received) => `${JSON.parse(body).partitionkey}:${JSON.parse(body).data.tags[0]}`
  const to = await receiver(t, (one) => (tagOf(one) === 'team/app:bad' ? 500 : 200))
  const { id } = await add({ url: to.url, format: 'cloudevents', ordered: true })
  await client.pushImage('team/app', image, 'bad')
  for (const tag of ['one', 'two', 'three']) await pushTag(client, 'team/app', tag)
  await client.pushImage('other/app', image, 'free')
  await eventually('the other repository', () => to.received.some((one) => tagOf(one) === 'other/app:free'))
  await eventually(
    'the deliveries after the failing one',
    () => to.received.some((one) => tagOf(one) === 'team/app:three'),
    20_000,
  )
  const order = to.received.map(tagOf).filter((tag) => tag.startsWith('team/') && tag !== 'team/app:bad')
  assert.deepEqual(order, ['team/app:one', 'team/app:two', 'team/app:three'])
  const firstBad = to.received.findIndex((one) => tagOf(one) === 'team/app:bad')
  assert.equal(
    firstBad,
    to.received.findIndex((one) => tagOf(one).startsWith('team/')),
  )
  const { body } = await api('GET', `/${id}/deliveries?state=parked`)
  assert.deepEqual(
    [body.deliveries.length, body.deliveries[0].status, body.deliveries[0].answer],
    [1, 500, 'answer 500'],
  )
  const again = await api('POST', `/${id}/redeliver`, { id: body.deliveries[0].id })
  assert.deepEqual([again.status, again.body.redelivering], [202, 1])
  const count = () => to.received.filter((one) => tagOf(one) === 'team/app:bad').length
  const before = count()
  await eventually('the delivery to be sent again', () => count() > before)
})

test('a restarted service sends pending deliveries; replay reuses the IDs; a test delivery arrives', async (t) => {
  const { client, add, api, stop, restart } = await setUp(t)
  const to = await receiver(t)
  const { id } = await add({ url: to.url })
  await client.pushImage('team/app', image, 'v1')
  await eventually('the first delivery', () => to.received.length === 1)
  await stop()
  for (const tag of ['v2', 'v3']) await pushTag(client, 'team/app', tag)
  await restart()
  await eventually('the other deliveries', () => to.received.length === 3)
  const replayed = await api('POST', `/${id}/replay`, { after: 'eu:1:0' })
  assert.deepEqual([replayed.status, replayed.body.planned], [202, 3])
  await eventually('all deliveries again', () => to.received.length === 6)
  const ids = to.received.map(({ headers }) => headers['webhook-id'])
  assert.deepEqual(new Set(ids.slice(3)), new Set(ids.slice(0, 3)))
  const tested = await api('POST', `/${id}/test`)
  assert.equal(tested.status, 202)
  await eventually(
    'the test delivery',
    () => to.received.at(-1)?.headers['webhook-id'] === tested.body.delivery,
  )
})

test('after a change of the secret, the new and the old secret both sign for a day', async (t) => {
  const { client, add, api } = await setUp(t)
  const to = await receiver(t)
  const { id, secret } = await add({ url: to.url })
  const next = `whsec_${Buffer.alloc(32, 9).toString('base64')}`
  await api('PATCH', `/${id}`, { secret: next })
  await new Promise((turn) => setTimeout(turn, 1_100))
  await client.pushImage('team/app', image, 'v1')
  await eventually('the delivery', () => to.received.length === 1)
  const [one] = to.received
  for (const known of [secret, next]) {
    new StandardWebhook(known).verify(one?.body ?? '', one?.headers as Record<string, string>)
  }
  const shown = JSON.stringify((await api('GET', '')).body)
  assert.doesNotMatch(shown, /whsec_/)
})

test('invalid subscriptions are rejected with a clear message', async (t) => {
  const { api } = await setUp(t)
  const url = 'https://example.com/hook'
  for (const [body, sentence] of [
    [{}, /url is missing/],
    [{ url: 'ftp://x' }, /not an http/],
    [{ url: 'https://user:pass@x' }, /credentials/],
    [{ url, format: 'xml' }, /format must be one of/],
    [{ url, secret: 'short' }, /whsec_/],
    [{ url, headers: { Host: 'x' } }, /reserved or invalid header/],
    [{ url, headers: { 'X-A': 'a\nb' } }, /the header X-A is invalid/],
    [{ url, types: 'push' }, /types must be an array/],
    [{ url, ordered: 'yes' }, /ordered must be true or false/],
    [{ url, colour: 'red' }, /colour is not a known field/],
    [{ url, previousSecret: null }, /previousSecret is not a known field/],
  ] as const) {
    const { status, body: answer } = await api('POST', '', body)
    assert.equal(status, 400, JSON.stringify(body))
    assert.match(answer.errors[0].message, sentence)
  }
  assert.equal((await api('GET', '/not-a-uuid')).status, 404)
  assert.equal((await api('PUT', '')).status, 405)
  assert.equal((await api('POST', '', [])).status, 400)
})

test('webhooks require an admin, and private addresses require permission in the configuration', async (t) => {
  const htpasswd = join(await testDirectory(t), 'htpasswd')
  await writeFile(
    htpasswd,
    `root:${await bcrypt.hash('secret', 4)}\nalice:${await bcrypt.hash('secret', 4)}\n`,
  )
  const { api } = await setUp(t, {
    PORTOLAN_AUTH: 'accounts',
    PORTOLAN_HTPASSWD_FILE: htpasswd,
    PORTOLAN_ADMINS: 'root',
  })
  const as = (name: string) => ({ Authorization: `Basic ${btoa(`${name}:secret`)}` })
  assert.equal((await api('GET', '')).status, 401)
  assert.equal((await api('GET', '', undefined, as('alice'))).status, 403)
  assert.equal((await api('GET', '', undefined, as('root'))).status, 200)
  const wanted = { url: 'http://10.0.0.1/', allowPrivate: true }
  const refused = await api('POST', '', wanted, as('root'))
  assert.equal(refused.status, 403)
  assert.match(refused.body.errors[0].message, /PORTOLAN_WEBHOOKS_ALLOW_PRIVATE/)
})

test('a webhook without permission never reaches a private address, and its delivery records why', async (t) => {
  const { client, api } = await setUp(t, { PORTOLAN_WEBHOOK_GIVE_UP_SECONDS: '1' })
  const to = await receiver(t)
  const { body } = await api('POST', '', { url: to.url })
  await client.pushImage('team/app', image, 'v1')
  await eventually('the delivery to be parked', async () => {
    const { body: listed } = await api('GET', `/${body.id}/deliveries?state=parked`)
    return (
      listed.deliveries.length === 1 && /AddressRefusedError.*127\.0\.0\.1/.test(listed.deliveries[0].answer)
    )
  })
  assert.equal(to.received.length, 0)
})

test('the wait doubles with jitter, up to 15 minutes', () => {
  assert.deepEqual(
    [1, 2, 3, 30].map((attempts) => waitSeconds(5, attempts, () => 1)),
    [5, 10, 20, 900],
  )
  assert.equal(
    waitSeconds(5, 1, () => 0),
    2.5,
  )
})
