// /api/v1/schemas: the schema of the data of each event type. Anyone may read it, because it contains no secret.

import { Type } from 'typebox'
import { RegistryError } from '#shared/errors.ts'
import { eventSchema, eventTypes, schemaPath, TYPE_PREFIX } from '#shared/events/event-types.ts'
import { declare } from './declare.ts'

export const schemaRoutes = Object.freeze([
  declare({
    name: 'schemas',
    method: 'GET',
    url: '/api/v1/schemas',
    need: 'nothing',
    operationId: 'listEventTypes',
    tag: 'events',
    summary: 'The types of events',
    status: 200,
    reply: {
      description: 'Every type with the path of its schema.',
      body: Type.Object({
        types: Type.Array(Type.Object({ type: Type.String(), schema: Type.String() })),
      }),
    },
    async handle() {
      const types = Object.keys(eventTypes).map((name) => TYPE_PREFIX + name)
      return { body: { types: types.map((type) => ({ type, schema: schemaPath(type) })) } }
    },
  }),
  declare({
    name: 'schema',
    method: 'GET',
    url: '/api/v1/schemas/:type.json',
    need: 'nothing',
    operationId: 'getEventSchema',
    tag: 'events',
    summary: 'The JSON Schema of the data of a type of event',
    params: Type.Object({ type: Type.String({ maxLength: 100 }) }),
    status: 200,
    reply: {
      description: 'A JSON Schema (draft 2020-12).',
      contentType: 'application/schema+json',
      body: Type.Record(Type.String(), Type.Unknown()),
    },
    errors: ['NOT_FOUND'],
    async handle({ params }) {
      const schema = eventSchema(params.type)
      if (schema === undefined) {
        throw new RegistryError('NOT_FOUND', { message: 'there is no such type of event' })
      }
      return { body: schema }
    },
  }),
])
