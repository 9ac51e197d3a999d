// GET /api/v1/openapi.json: the OpenAPI 3.1 document of /api/v1, generated from the declarations. Anyone may read it:
// it is the same in every region and reveals nothing about this one.

import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import type { FastifySchema } from 'fastify'
import { Type } from 'typebox'
import { type ErrorCode, errorTable } from '#shared/errors.ts'
import { type AdminRouteConfig, type Declaration, declare } from './declare.ts'
import { JSON_TYPE } from './shapes.ts'

const DESCRIPTION = `Administration, events and webhooks of a Portolan region.

Every error is the envelope of the OCI distribution specification, with a code from a closed list.
HEAD is answered wherever GET is, without a body. A method that a path does not have is 405 with \`Allow\`.
Unknown query parameters are ignored; unknown fields of a body are refused.
A field that is invalid gets the code of its \`x-error-code\`, or else REQUEST_INVALID.
Bodies are JSON of at most 64 KiB, whatever \`Content-Type\` says.`

const TAGS = [
  { name: 'region', description: 'The region that answers.' },
  { name: 'repositories', description: 'Repositories as a whole.' },
  { name: 'events', description: 'What happened in the region, in order.' },
  { name: 'webhooks', description: 'Subscriptions to events, and their deliveries.' },
  { name: 'document', description: 'This document.' },
]

export function documentOptions(): FastifyDynamicSwaggerOptions {
  return {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Portolan',
        version: '1',
        description: DESCRIPTION,
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } as { name: string },
      },
      servers: [{ url: '/', description: 'The registry that serves this document.' }],
      tags: TAGS,
      components: {
        securitySchemes: {
          basic: { type: 'http', scheme: 'basic', description: 'An account and its password.' },
          bearer: { type: 'http', scheme: 'bearer', description: 'A token from /token.' },
        },
      },
    },
    refResolver: { buildLocalReference: (json, _base, _fragment, i) => String(json.$id ?? `def-${i}`) },
    transform: ({ schema, url, route }) => {
      const { declaration } = (route.config ?? {}) as Partial<AdminRouteConfig>
      if (declaration === undefined || schema?.hide === true) return { schema: { hide: true }, url }
      return { schema: describe(declaration), url: declaration.url.replace(/\*([a-z]+)$/, ':$1') }
    },
  }
}

const SECURITY = Object.freeze({
  nothing: [],
  reader: [{ basic: [] }, { bearer: [] }],
  admin: [{ basic: [] }],
} satisfies Record<Declaration['need'], Record<string, string[]>[]>)

function describe(declaration: Declaration): FastifySchema {
  const { operationId, tag, summary, description, need, params, query, body, status, reply } = declaration
  return {
    operationId,
    tags: [tag],
    summary,
    ...(description !== undefined && { description }),
    security: SECURITY[need],
    ...(params && { params }),
    ...(query && { querystring: query }),
    ...(body && { body }),
    response: { [status]: describeReply(reply), ...describeErrors(declaration) },
  }
}

function describeReply({
  description,
  body,
  contentType = JSON_TYPE,
  headers,
  streams,
}: Declaration['reply']) {
  const fields = headers && {
    headers: Object.fromEntries(
      Object.entries(headers).map(([name, what]) => [name, { type: 'string', description: what }]),
    ),
  }
  if (body === undefined) return { type: 'null', description, ...fields }
  const streamed = Object.entries(streams ?? {}).map(([type, what]) => [
    type,
    { schema: { type: 'string', description: what } },
  ])
  return {
    description,
    ...fields,
    content: { [contentType]: { schema: body }, ...Object.fromEntries(streamed) },
  }
}

/** Header fields of error replies, by status. */
const ERROR_HEADERS: Readonly<Record<number, Readonly<Record<string, object>>>> = Object.freeze({
  401: { 'WWW-Authenticate': { type: 'string', description: 'How to authenticate.' } },
  429: { 'Retry-After': { type: 'string', description: 'Seconds to wait.' } },
  503: { 'Retry-After': { type: 'string', description: 'Seconds to wait.' } },
})

/** The error codes of a route, by status. */
function describeErrors(declaration: Declaration): Record<number, object> {
  const codes: ErrorCode[] = ['REQUEST_INVALID', 'UNKNOWN', 'UNAVAILABLE', ...(declaration.errors ?? [])]
  // Clients that guess passwords are rate limited.
  if (declaration.need !== 'nothing') codes.push('UNAUTHORIZED', 'TOOMANYREQUESTS')
  if (declaration.need === 'admin') codes.push('DENIED')
  const byStatus = Map.groupBy(new Set(codes), (code) => errorTable[code].status as number)
  const described = [...byStatus].map(([status, ofStatus]): [number, string] => [
    status,
    ofStatus.map((code) => `\`${code}\`: ${errorTable[code].message}.`).join(' '),
  ])
  if (declaration.body !== undefined) {
    described.push([408, '`REQUEST_INVALID`: the body arrives too slowly.'])
    described.push([413, '`REQUEST_INVALID`: the body is larger than 64 KiB.'])
  }
  return Object.fromEntries(
    described.map(([status, description]) => [
      status,
      {
        description,
        ...(ERROR_HEADERS[status] && { headers: ERROR_HEADERS[status] }),
        content: { [JSON_TYPE]: { schema: { $ref: 'Error#' } } },
      },
    ]),
  )
}

/** @param document returns the document; called after every route is registered */
export function documentRoute(document: () => object): Declaration {
  return declare({
    name: 'openapi',
    method: 'GET',
    url: '/api/v1/openapi.json',
    need: 'nothing',
    operationId: 'getDocument',
    tag: 'document',
    summary: 'This document',
    status: 200,
    reply: {
      description: 'The OpenAPI 3.1 document of `/api/v1`.',
      body: Type.Record(Type.String(), Type.Unknown()),
    },
    handle: async () => ({ body: document() as Record<string, unknown> }),
  })
}
