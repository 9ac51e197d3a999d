// GET /api/v1/schemas and /api/v1/schemas/<type>.json: what events look like. No secret: anybody may read it.

import { RegistryError } from '#shared/errors.ts'
import { eventSchema, eventTypes, schemaPath, TYPE_PREFIX } from '#shared/events/event-types.ts'
import { type Exchange, sendJson } from '../exchange.ts'

export async function schemas(exchange: Exchange): Promise<void> {
  const [path = ''] = (exchange.request.url ?? '').split('?')
  if (/^\/api\/v1\/schemas\/?$/.test(path)) {
    const types = Object.keys(eventTypes).map((name) => TYPE_PREFIX + name)
    return sendJson(exchange, { types: types.map((type) => ({ type, schema: schemaPath(type) })) })
  }
  const schema = eventSchema(/^\/api\/v1\/schemas\/([a-z0-9.]{1,100})\.json$/.exec(path)?.[1] ?? '')
  if (schema === undefined)
    throw new RegistryError('NOT_FOUND', { message: 'there is no such type of event' })
  sendJson(exchange, schema, { headers: { 'Content-Type': 'application/schema+json' } })
}
