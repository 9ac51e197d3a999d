// /api/v1/webhooks: subscriptions and their deliveries, for admins.
//
//   GET, POST           /api/v1/webhooks
//   GET, PATCH, DELETE  /api/v1/webhooks/<id>
//   POST                /api/v1/webhooks/<id>/test              a delivery that nothing happened for
//   POST                /api/v1/webhooks/<id>/replay            {"after": position}: the events behind it once more
//   GET                 /api/v1/webhooks/<id>/deliveries        ?state=&limit=&before=, newest first
//   POST                /api/v1/webhooks/<id>/redeliver         {"id"} or {"state", "from", "to"}: settled ones once more
//
// A secret is answered once, to the request that made the webhook; headers' values never. A webhook that cannot be read
// is listed under `unreadable` with what is wrong; it can be mended by PATCH or removed by DELETE.

import { listDeliveries, redeliver } from '#shared/db/webhook-deliveries.ts'
import { RegistryError } from '#shared/errors.ts'
import { formatPosition, parsePosition } from '#shared/events/position.ts'
import { parseQuery } from '#shared/oci/query.ts'
import { JsonError, parseStrictJson } from '#shared/oci/strict-json.ts'
import {
  addWebhook,
  changeWebhook,
  removeWebhook,
  replay,
  sendTest,
  subscription,
  subscriptions,
} from '#shared/webhooks/subscriptions.ts'
import { describeWebhook, parseWebhook } from '#shared/webhooks/webhook.ts'
import { readBody } from '../body.ts'
import { type Exchange, provenanceOf, sendEmpty, sendJson } from '../exchange.ts'

const BODY_BYTES_MAX = 64 * 1024
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const PAGE = 100
const PAGE_MAX = 1_000
const NUMBER_MAX = Number.MAX_SAFE_INTEGER
const STATES = ['waiting', 'delivered', 'parked']

interface WebhookPath {
  readonly id: string
  readonly query: string
}

export async function getWebhooks(exchange: Exchange): Promise<void> {
  const { readable, unreadable } = await subscriptions(exchange.region)
  sendJson(exchange, {
    webhooks: readable.map(({ id, webhook }) => describeWebhook(id, webhook)),
    unreadable,
  })
}

export async function postWebhook(exchange: Exchange): Promise<void> {
  const given = parseWebhook(await jsonBody(exchange))
  const added = await addWebhook(exchange.region, { given, provenance: provenanceOf(exchange) })
  const described = { ...describeWebhook(added.id, added.webhook), secret: added.webhook.secret }
  sendJson(exchange, described, {
    status: 201,
    headers: { Location: `/api/v1/webhooks/${added.id}` },
  })
}

export async function getWebhook(exchange: Exchange, path: WebhookPath): Promise<void> {
  const id = requireId(path)
  const found = await subscription(exchange.region, id)
  sendJson(exchange, 'webhook' in found ? describeWebhook(id, found.webhook) : found)
}

export async function changeOneWebhook(exchange: Exchange, path: WebhookPath): Promise<void> {
  const id = requireId(path)
  const change = parseWebhook(await jsonBody(exchange))
  const { webhook } = await changeWebhook(exchange.region, { id, change, provenance: provenanceOf(exchange) })
  sendJson(exchange, describeWebhook(id, webhook))
}

export async function removeOneWebhook(exchange: Exchange, path: WebhookPath): Promise<void> {
  await removeWebhook(exchange.region, { id: requireId(path), provenance: provenanceOf(exchange) })
  sendEmpty(exchange, 204)
}

export async function postTest(exchange: Exchange, path: WebhookPath): Promise<void> {
  const { region } = exchange
  const id = requireId(path)
  await subscription(region, id)
  sendJson(exchange, { delivery: await sendTest(region, id) }, { status: 202 })
}

function requireId({ id }: WebhookPath): string {
  if (!UUID.test(id)) throw new RegistryError('NOT_FOUND')
  return id
}

export async function getDeliveries(exchange: Exchange, path: WebhookPath): Promise<void> {
  const { region } = exchange
  const id = requireId(path)
  const query = parseQuery(path.query)
  await subscription(region, id)
  const state = stateOf(query.get('state'))
  const limit = numberOf('limit', query.get('limit'), { otherwise: PAGE, max: PAGE_MAX })
  const before = numberOf('before', query.get('before'), { otherwise: NUMBER_MAX, max: NUMBER_MAX })
  const rows = await listDeliveries(region.reads, { subscription: id, before, state, limit })
  sendJson(exchange, {
    deliveries: rows.map(({ created_at, attempted_at, due_at, ...row }) => ({
      ...row,
      createdAt: created_at,
      attemptedAt: attempted_at,
      ...(row.state === 'waiting' && { dueAt: due_at }),
    })),
  })
}

export async function postReplay(exchange: Exchange, path: WebhookPath): Promise<void> {
  const { region } = exchange
  const id = requireId(path)
  const { after: text } = (await jsonBody(exchange)) as { after?: unknown }
  const after = typeof text === 'string' ? parsePosition(text) : undefined
  if (after === undefined || !('pos' in after) || after.origin !== region.name) {
    throw new RegistryError('REQUEST_INVALID', {
      message: `after is no position of this region: ${region.name}:<epoch>:<number>`,
    })
  }
  const { planned, next } = await replay(region, { id, after })
  sendJson(exchange, { planned, next: formatPosition({ origin: region.name, ...next }) }, { status: 202 })
}

export async function postRedeliver(exchange: Exchange, path: WebhookPath): Promise<void> {
  const { region } = exchange
  const id = requireId(path)
  const body = (await jsonBody(exchange)) as { id?: unknown; state?: unknown; from?: unknown; to?: unknown }
  await subscription(region, id)
  const again = await redeliver(region.db, {
    subscription: id,
    id: typeof body.id === 'string' ? body.id : null,
    state: body.id === undefined ? (stateOf(body.state) ?? 'parked') : null,
    first: numberOf('from', body.from, { otherwise: 0, max: NUMBER_MAX }),
    last: numberOf('to', body.to, { otherwise: NUMBER_MAX, max: NUMBER_MAX }),
    giveUpSeconds: region.config.webhooks.giveUpSeconds,
    limit: PAGE_MAX,
  })
  if (again === 0 && typeof body.id === 'string') {
    throw new RegistryError('NOT_FOUND', { message: 'no such delivery, or it is still waiting' })
  }
  sendJson(exchange, { redelivering: again }, { status: 202 })
}

async function jsonBody(exchange: Exchange): Promise<object> {
  const bytes = await readBody(exchange, { bytesMax: BODY_BYTES_MAX, code: 'REQUEST_INVALID' })
  try {
    const body = parseStrictJson(bytes)
    if (typeof body === 'object' && body !== null) return body
  } catch (thrown) {
    if (!(thrown instanceof JsonError)) throw thrown
  }
  throw new RegistryError('REQUEST_INVALID', { message: 'the body is no JSON object' })
}

function stateOf(value: unknown): string | null {
  if (value === undefined) return null
  const state = STATES.find((known) => known === value)
  if (state === undefined)
    throw new RegistryError('REQUEST_INVALID', { message: `state is one of ${STATES.join(', ')}` })
  return state
}

function numberOf(
  name: string,
  value: unknown,
  { otherwise, max }: { otherwise: number; max: number },
): number {
  if (value === undefined) return otherwise
  const number = typeof value === 'string' && !/^[0-9]{1,16}$/.test(value) ? Number.NaN : Number(value)
  if (Number.isSafeInteger(number) && number >= 0 && number <= max) return number
  throw new RegistryError('REQUEST_INVALID', { message: `${name} is no number from 0 to ${max}` })
}
