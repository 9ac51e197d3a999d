// Shapes that several routes of /api/v1 share: the error envelope, names, positions, events.

import { Type } from 'typebox'
import { errorTable } from '#shared/errors.ts'
import { ERROR_CODE } from './schema-compilers.ts'

export const JSON_TYPE = 'application/json'

export const ErrorEnvelope = Type.Object(
  {
    errors: Type.Array(
      Type.Object({
        code: Type.Enum(Object.keys(errorTable)),
        message: Type.String({ description: 'A sentence for people.' }),
        detail: Type.Optional(Type.Unknown({ description: 'Facts for programs, such as a position.' })),
      }),
      { minItems: 1 },
    ),
  },
  { $id: 'Error', description: 'The error envelope of the OCI distribution specification.' },
)

/** Named in the document and referenced with `$ref`. */
export const sharedSchemas = Object.freeze([ErrorEnvelope])

export const RepositoryName = Type.String({
  minLength: 1,
  maxLength: 255,
  [ERROR_CODE]: 'NAME_INVALID',
  description:
    'The name of a repository. In a path, slashes may be percent-encoded (`team%2Fapp`) or left as they are.',
})

export const Position = Type.String({
  maxLength: 60,
  description: 'A place in the event log: `<region>:<epoch>:<number>`.',
})

/** Returns the position of a write to its caller. */
export const POSITION_HEADER = Object.freeze({
  'Portolan-Position': 'The place of this write in the event log: give it to `after` of GET /api/v1/events.',
})

const Uuid = Type.String({
  pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$',
  [ERROR_CODE]: 'NOT_FOUND',
})

export const IdParams = Type.Object({ id: Uuid })

/** CloudEvents 1.0. The content of `data` depends on the type: see /api/v1/schemas. */
export const Event = Type.Object(
  {
    specversion: Type.Literal('1.0'),
    id: Type.String({ description: 'The same wherever the event is delivered: receivers compare it.' }),
    source: Type.String(),
    type: Type.String(),
    subject: Type.String(),
    time: Type.String(),
    datacontenttype: Type.Literal(JSON_TYPE),
    dataschema: Type.String({ description: 'The JSON Schema of `data`, relative to the registry.' }),
    partitionkey: Type.String({ description: 'The repository.' }),
    sequence: Type.String(),
    position: Position,
    traceparent: Type.Optional(Type.String()),
    data: Type.Record(Type.String(), Type.Unknown()),
  },
  { description: 'A CloudEvent (specification 1.0).' },
)
