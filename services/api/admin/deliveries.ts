// /api/v1/webhooks/<id>/...: lists the deliveries of a webhook and repeats them. For admins only.

import { type Static, Type } from 'typebox'
import { listDeliveries, redeliver } from '#shared/db/webhook-deliveries.ts'
import { RegistryError } from '#shared/errors.ts'
import { formatPosition, parsePosition } from '#shared/events/position.ts'
import { replay, sendTest, subscription } from '#shared/webhooks/subscriptions.ts'
import { declare } from './declare.ts'
import { IdParams, Position } from './shapes.ts'

const PAGE = 100
const PAGE_MAX = 1_000
const NUMBER_MAX = Number.MAX_SAFE_INTEGER

const State = Type.Enum(['waiting', 'delivered', 'parked'], {
  description: '`parked` is a delivery that was given up: redeliver it when the receiver is back.',
})
const Place = Type.Integer({ minimum: 0, maximum: NUMBER_MAX })
const Time = Type.String({ format: 'date-time' })

const Delivery = Type.Object({
  id: Type.String({ description: 'What receivers get as `webhook-id`; the same at each attempt.' }),
  number: Type.Integer(),
  repository: Type.String(),
  type: Type.String(),
  state: State,
  attempts: Type.Integer(),
  status: Type.Union([Type.Integer(), Type.Null()], { description: 'Of the last answer.' }),
  answer: Type.Union([Type.String(), Type.Null()], {
    description: 'How the last answer began, or what failed.',
  }),
  createdAt: Time,
  attemptedAt: Type.Union([Time, Type.Null()]),
  dueAt: Type.Optional(Time),
})

const common = { need: 'admin', tag: 'webhooks', params: IdParams, errors: ['NOT_FOUND'] } as const
const ONE = '/api/v1/webhooks/:id'

export const deliveryRoutes = Object.freeze([
  declare({
    ...common,
    name: 'webhook-deliveries',
    method: 'GET',
    url: `${ONE}/deliveries`,
    operationId: 'listDeliveries',
    summary: 'Deliveries of a webhook, newest first',
    query: Type.Object({
      state: Type.Optional(State),
      limit: Type.Optional(Type.Integer({ minimum: 0, maximum: PAGE_MAX, default: PAGE })),
      before: Type.Optional(
        Type.Integer({
          ...Place,
          description: 'Only deliveries with a smaller `number`: the last of the page before.',
        }),
      ),
    }),
    status: 200,
    reply: { description: 'A page of deliveries.', body: Type.Object({ deliveries: Type.Array(Delivery) }) },
    async handle({ exchange: { region }, params: { id }, query }) {
      const { state = null, limit = PAGE, before = NUMBER_MAX } = query
      await subscription(region, id)
      const rows = await listDeliveries(region.reads, { subscription: id, before, state, limit })
      return {
        body: {
          deliveries: rows.map(({ created_at, attempted_at, due_at, ...row }) => ({
            ...row,
            state: row.state as Static<typeof State>,
            createdAt: created_at.toISOString(),
            attemptedAt: attempted_at?.toISOString() ?? null,
            ...(row.state === 'waiting' && { dueAt: due_at.toISOString() }),
          })),
        },
      }
    },
  }),
  declare({
    ...common,
    name: 'webhook-test',
    method: 'POST',
    url: `${ONE}/test`,
    operationId: 'testWebhook',
    summary: 'Send a delivery that nothing happened for',
    status: 202,
    reply: {
      description: 'The delivery will be sent.',
      body: Type.Object({ delivery: Type.String({ description: 'Its `id`.' }) }),
    },
    async handle({ exchange: { region }, params: { id } }) {
      await subscription(region, id)
      return { body: { delivery: await sendTest(region, id) } }
    },
  }),
  declare({
    ...common,
    name: 'webhook-replay',
    method: 'POST',
    url: `${ONE}/replay`,
    operationId: 'replayWebhook',
    summary: 'Send the events behind a position once more',
    description: 'Looks at up to 10,000 events. Call again with `next` for those after them.',
    body: Type.Object({ after: Position }, { additionalProperties: false }),
    status: 202,
    reply: {
      description: 'The deliveries will be sent.',
      body: Type.Object({ planned: Type.Integer(), next: Position }),
    },
    async handle({ exchange: { region }, params: { id }, body }) {
      const after = parsePosition(body.after)
      if (after === undefined || !('pos' in after) || after.origin !== region.name) {
        throw new RegistryError('REQUEST_INVALID', {
          message: `after is not a position of this region: ${region.name}:<epoch>:<number>`,
        })
      }
      const { planned, next } = await replay(region, { id, after })
      return { body: { planned, next: formatPosition({ origin: region.name, ...next }) } }
    },
  }),
  declare({
    ...common,
    name: 'webhook-redeliver',
    method: 'POST',
    url: `${ONE}/redeliver`,
    operationId: 'redeliver',
    summary: 'Send settled deliveries once more',
    description:
      'One by its `id`, or up to 1,000 of a state in a range of numbers. Without either: the parked ones.',
    body: Type.Object(
      {
        id: Type.Optional(Type.String({ maxLength: 255 })),
        state: Type.Optional(State),
        from: Type.Optional(Place),
        to: Type.Optional(Place),
      },
      { additionalProperties: false },
    ),
    status: 202,
    reply: {
      description: 'They will be sent.',
      body: Type.Object({ redelivering: Type.Integer() }),
    },
    async handle({ exchange: { region }, params, body }) {
      const { id = null, state = 'parked', from = 0, to = NUMBER_MAX } = body
      await subscription(region, params.id)
      const redelivering = await redeliver(region.db, {
        subscription: params.id,
        id,
        state: id === null ? state : null,
        first: from,
        last: to,
        giveUpSeconds: region.config.webhooks.giveUpSeconds,
        limit: PAGE_MAX,
      })
      if (redelivering === 0 && id !== null) {
        throw new RegistryError('NOT_FOUND', { message: 'no such delivery, or it is still waiting' })
      }
      return { body: { redelivering } }
    },
  }),
])
