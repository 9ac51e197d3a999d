// /api/v1/webhooks: subscriptions to events. For admins only. Their deliveries are in deliveries.ts.
//
// A secret is returned once, in the reply to the request that created the webhook. The values of headers are never
// returned. A webhook that cannot be read is listed under `unreadable` with the reason. A PATCH repairs it, a DELETE
// removes it.

import { Type } from 'typebox'
import {
  addWebhook,
  changeWebhook,
  removeWebhook,
  subscription,
  subscriptions,
} from '#shared/webhooks/subscriptions.ts'
import { describeWebhook, parseWebhook, WEBHOOK_FORMATS } from '#shared/webhooks/webhook.ts'
import { provenanceOf } from '../exchange.ts'
import { declare } from './declare.ts'
import { IdParams } from './shapes.ts'

const LIST_MAX = 100
const HEADERS_MAX = 20
const Names = (description: string) =>
  Type.Array(Type.String({ pattern: '^[A-Za-z0-9._/*-]{1,255}$' }), { maxItems: LIST_MAX, description })

/** The part of a webhook that may be shown. */
const described = {
  url: Type.String({ description: 'Where deliveries are sent: http or https, without credentials.' }),
  types: Names('Types of events, in full or by their last part. Empty: pushes and deletes.'),
  repositories: Names('Names of repositories, or prefixes that end in `*`. Empty: every repository.'),
  format: Type.Enum([...WEBHOOK_FORMATS], { description: 'How a delivery is written.' }),
  headers: Type.Record(Type.String(), Type.String(), {
    maxProperties: HEADERS_MAX,
    description: 'Header fields of each delivery. Values are secrets: answers show `***`.',
  }),
  ordered: Type.Boolean({
    description: 'Per repository, send an event only when the one before it was delivered or parked.',
  }),
  enabled: Type.Boolean(),
  allowPrivate: Type.Boolean({
    description: 'Deliveries may go to private addresses, where the configuration permits it.',
  }),
}

const Secret = Type.String({
  description: 'Signs deliveries (Standard Webhooks): `whsec_` and base64 of 24 to 64 bytes.',
})

const written = { ...described, secret: Secret }
const { url, ...optional } = written
const NewWebhook = Type.Object(
  { url, ...Type.Partial(Type.Object(optional)).properties },
  { additionalProperties: false },
)
const WebhookChange = Type.Partial(Type.Object(written), { additionalProperties: false })

const Webhook = Type.Object({ id: Type.String(), ...described })
const Unreadable = Type.Object(
  { id: Type.String(), problem: Type.String() },
  { description: 'A webhook that cannot be read: nothing is sent until it is changed or removed.' },
)

const common = { need: 'admin', tag: 'webhooks' } as const
const ALL = '/api/v1/webhooks'
const ONE = '/api/v1/webhooks/:id'

export const webhookRoutes = Object.freeze([
  declare({
    ...common,
    name: 'webhooks',
    method: 'GET',
    url: ALL,
    operationId: 'listWebhooks',
    summary: 'All webhooks',
    status: 200,
    reply: {
      description: 'Every webhook, without its secrets.',
      body: Type.Object({ webhooks: Type.Array(Webhook), unreadable: Type.Array(Unreadable) }),
    },
    async handle({ exchange }) {
      const { readable, unreadable } = await subscriptions(exchange.region)
      return {
        body: { webhooks: readable.map(({ id, webhook }) => describeWebhook(id, webhook)), unreadable },
      }
    },
  }),
  declare({
    ...common,
    name: 'webhooks',
    method: 'POST',
    url: ALL,
    operationId: 'createWebhook',
    summary: 'Make a webhook',
    body: NewWebhook,
    status: 201,
    reply: {
      description: 'The webhook with its secret, which is shown only here.',
      body: Type.Object({ ...Webhook.properties, secret: Secret }),
      headers: { Location: 'The path of the webhook.' },
    },
    async handle({ exchange, body }) {
      const given = parseWebhook(body)
      const { id, webhook } = await addWebhook(exchange.region, { given, provenance: provenanceOf(exchange) })
      return {
        body: { ...describeWebhook(id, webhook), secret: webhook.secret },
        headers: { Location: `${ALL}/${id}` },
      }
    },
  }),
  declare({
    ...common,
    name: 'webhook',
    method: 'GET',
    url: ONE,
    operationId: 'getWebhook',
    summary: 'One webhook',
    params: IdParams,
    status: 200,
    reply: { description: 'The webhook, without its secrets.', body: Type.Union([Webhook, Unreadable]) },
    errors: ['NOT_FOUND'],
    async handle({ exchange, params: { id } }) {
      const found = await subscription(exchange.region, id)
      return { body: 'webhook' in found ? describeWebhook(id, found.webhook) : found }
    },
  }),
  declare({
    ...common,
    name: 'webhook',
    method: 'PATCH',
    url: ONE,
    operationId: 'changeWebhook',
    summary: 'Change some fields of a webhook',
    description: 'After a change of the secret, the old one signs beside the new one for 24 hours.',
    params: IdParams,
    body: WebhookChange,
    status: 200,
    reply: { description: 'The webhook after the change.', body: Webhook },
    errors: ['NOT_FOUND'],
    async handle({ exchange, params: { id }, body }) {
      const change = parseWebhook(body)
      const provenance = provenanceOf(exchange)
      const { webhook } = await changeWebhook(exchange.region, { id, change, provenance })
      return { body: describeWebhook(id, webhook) }
    },
  }),
  declare({
    ...common,
    name: 'webhook',
    method: 'DELETE',
    url: ONE,
    operationId: 'deleteWebhook',
    summary: 'Remove a webhook and what it would still have been sent',
    params: IdParams,
    status: 204,
    reply: { description: 'It is gone.' },
    errors: ['NOT_FOUND'],
    async handle({ exchange, params: { id } }) {
      await removeWebhook(exchange.region, { id, provenance: provenanceOf(exchange) })
      return {}
    },
  }),
])
