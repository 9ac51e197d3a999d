// Secrets given to the registry never appear where they could be read later: rows (and so a dump), the feed, the log
// for other regions, Kafka records, log lines, metrics, errors, the printed configuration. The test plants each secret
// and proves that it searches each place.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { printConfig } from '#shared/config/describe.ts'
import { readWholeEvents } from '#shared/db/shard-log.ts'
import { toCloudEvent } from '#shared/events/cloud-event.ts'
import { SHARDS } from '#shared/events/event-id.ts'
import { toKafkaRecord } from '#shared/events/kafka-record.ts'
import { remoteLogPages } from '#shared/peers/remote-log-pages.ts'
import { startRelay } from '../../services/relay/service.ts'
import { startWebhooks } from '../../services/webhooks/service.ts'
import { ALICE, accountsNode, basic, ROOT } from '../support/accounts.ts'
import { eventually } from '../support/eventually.ts'
import { everyRow } from '../support/every-row.ts'
import { testImage } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'

const PEER_KEY = 'planted-peer-key-0123456789-0123456789'
const SECRETS_KEY = 'planted-secrets-key-0123456789-0123456789'
const secret = (n: number) => `whsec_${createHash('sha256').update(`planted ${n}`).digest('base64')}`
const HEADER = 'Bearer planted-header-of-a-webhook'
const PATH = '/planted-path-token/planted-more'
const QUERY = 'token=planted-query-token'

test('no secret is visible in a dump, a feed, a log, a metric or an error', async (t) => {
  const received: string[] = []
  const receiver = createServer((request, response) => {
    received.push(`${request.url} ${request.headers.authorization}`)
    // Like many servers, this one echoes the request.
    response.writeHead(received.length === 1 ? 404 : 200)
    response.end(`Cannot ${request.method} ${request.url} with ${request.headers.authorization}`)
  })
  receiver.listen(0, '127.0.0.1')
  await once(receiver, 'listening')
  t.after(() => receiver.closeAllConnections())
  t.after(() => receiver.close())
  const env = {
    PORTOLAN_LOG_LEVEL: 'debug',
    PORTOLAN_PEER_KEYS: PEER_KEY,
    PORTOLAN_SECRETS_KEY: SECRETS_KEY,
    PORTOLAN_WEBHOOKS_ALLOW_PRIVATE: 'true',
    PORTOLAN_WEBHOOK_RETRY_SECONDS: '1',
  }
  const node = await accountsNode(t, { env })
  const { region } = node
  const relay = await startRelay(region)
  const webhooks = await startWebhooks(region)
  const dispose = region[Symbol.asyncDispose].bind(region)
  region[Symbol.asyncDispose] = async () => {
    await webhooks[Symbol.asyncDispose]()
    await relay[Symbol.asyncDispose]()
    await dispose()
  }
  const admin = ociClient(node.url, basic(ROOT))
  const answers: string[] = []
  const api = async (method: string, path: string, body?: unknown) => {
    const answer = await admin.request(method, `/api/v1/webhooks${path}`, {
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    answers.push(text)
    return text === '' ? undefined : JSON.parse(text)
  }
  const port = (receiver.address() as AddressInfo).port
  const url = `http://127.0.0.1:${port}${PATH}?${QUERY}`
  const { id } = await api('POST', '', {
    url,
    allowPrivate: true,
    secret: secret(1),
    headers: { Authorization: HEADER },
  })
  answers.length = 0 // The creator of a webhook gets the secret in the response, once.
  await api('PATCH', `/${id}`, { secret: secret(2) })
  const removed = await api('POST', '', {
    url,
    allowPrivate: true,
    secret: secret(3),
    headers: { Authorization: HEADER },
  })
  answers.pop()
  await api('DELETE', `/${removed.id}`)
  await api('PATCH', `/${id}`, { secret: `${secret(4)}!` })
  await api('PATCH', `/${id}`, { headers: { 'X-A': `${HEADER}\u0000` } })
  const token = await node.token(['repository:a:pull,push'])
  const client = ociClient(node.url, `Bearer ${token}`)
  await eventually('the planner to have begun', async () => {
    return (
      (await region.db.rows({ name: 'test-cursor', text: 'select from event_cursor', parameters: [] }))
        .length === 1
    )
  })
  await client.pushImage('a', testImage(), 'v1')
  await eventually('a failed and a repeated delivery', () => received.length >= 2)
  assert.ok(
    received.every((line) => line === `${PATH}?${QUERY} ${HEADER}`),
    'the receiver gets the secrets',
  )
  await eventually(
    'the delivery to be listed',
    async () => (await api('GET', `/${id}/deliveries`)).deliveries[0].state === 'delivered',
  )
  await api('GET', `/${id}`)
  await api('GET', '')
  for (const authorization of [basic({ ...ALICE, password: 'planted-wrong-password' }), `Bearer ${token}x`])
    answers.push(await (await ociClient(node.url, authorization).request('GET', '/v2/a/tags/list')).text())

  const feed = await (
    await fetch(`${node.url}/api/v1/events?limit=1000`, { headers: { Authorization: basic(ROOT) } })
  ).text()
  const pages = remoteLogPages({ url: node.url, from: 'us', to: 'eu', key: PEER_KEY, waitSeconds: 0 })
  const peerLog = await pages.page(
    Array.from({ length: SHARDS }, (_, shard) => ({ shard, epoch: 1, seq: 0 })),
  )
  const whole = await readWholeEvents(region.db, { after: { epoch: 1, pos: 0 }, limit: 1_000, bytesMax: 1e7 })
  const records = whole.map((event) => toKafkaRecord(toCloudEvent('eu', event)))
  const places: Record<string, { text: string; searched: string | RegExp }> = {
    rows: { text: await everyRow(region.databaseUrl), searched: id },
    feed: { text: feed, searched: 'push.v1' },
    'peer log': {
      text: JSON.stringify(peerLog),
      searched: /"field":"secret","value":"sealed:1:|"value":"sealed:1:/,
    },
    kafka: { text: JSON.stringify(records), searched: 'setting.set.v1' },
    logs: { text: node.logLines.join(''), searched: 'a login failed' },
    metrics: { text: await region.metrics.text(), searched: id },
    answers: { text: answers.join('\n').replaceAll(url, ''), searched: 'Cannot POST' },
    'printed configuration': { text: printConfig(env), searched: 'PORTOLAN_SECRETS_KEY=***' },
  }
  const [key] = await region.db.rows<{ sealed: string }>({
    name: 'test-key',
    text: 'select private_jwk as sealed from signing_key',
    parameters: [],
  })
  const privateHalf = JSON.parse(region.sealer?.open(key?.sealed ?? '', await placeOfKey()) ?? '{}') as {
    d: string
  }
  assert.ok(privateHalf.d.length > 20)
  async function placeOfKey(): Promise<string> {
    const [row] = await region.db.rows<{ kid: string }>({
      name: 'test-kid',
      text: 'select kid from signing_key',
      parameters: [],
    })
    return `signing-key/${row?.kid}`
  }
  const planted = {
    'webhook secret': secret(1).slice(6),
    'webhook secret that followed': secret(2).slice(6),
    'secret of a removed webhook': secret(3).slice(6),
    'refused secret': secret(4).slice(6, 40),
    'webhook header': HEADER.slice(7),
    'token in a path': PATH,
    'token in a query': QUERY,
    'peer key': PEER_KEY,
    'database password': new URL(region.databaseUrl.replace('@%2F', '@x%2F')).password,
    'secrets key': SECRETS_KEY,
    'token signing key': privateHalf.d,
    'password of alice': ALICE.password,
    'password of root': ROOT.password,
    'Basic credentials': basic(ROOT).slice(6),
    'wrong password': 'planted-wrong-password',
    'bearer token': token.slice(-40),
  }
  for (const [place, { text, searched }] of Object.entries(places)) {
    assert.ok(
      typeof searched === 'string' ? text.includes(searched) : searched.test(text),
      `${place} was searched`,
    )
    for (const [what, value] of Object.entries(planted))
      assert.ok(!text.includes(value), `${place} contains the ${what}`)
  }
  assert.ok(!places.kafka?.text.includes('sealed:'), 'Kafka has no values of settings, sealed or not')
  assert.ok(!places.feed?.text.includes('setting.'), 'the feed has no settings')
})
