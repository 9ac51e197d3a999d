// A route of /api/v1 is one declaration: what it needs, what it accepts and what it returns. Routing, validation,
// serialisation and the OpenAPI document are derived from it. To add a route, declare it in the file of its noun and
// list it in routes.ts.

import type { Static, TSchema } from 'typebox'
import type { ErrorCode } from '#shared/errors.ts'
import type { Method, RouteNeed } from '../authorize.ts'
import type { Exchange, Headers } from '../exchange.ts'
import type { Match, Needed } from '../route.ts'

/** The reply of a route on success. */
export interface Reply<Body extends TSchema> {
  readonly description: string
  /** Absent if the reply has no body. */
  readonly body?: Body
  /** Defaults to `application/json`. */
  readonly contentType?: string
  /** Header fields and their descriptions. */
  readonly headers?: Readonly<Record<string, string>>
  /** Content types that the handler writes itself, with descriptions. */
  readonly streams?: Readonly<Record<string, string>>
}

/** What a handler returns. The body is plain JSON. Properties that the schema does not name are not sent. */
export interface Answer<Body extends TSchema> {
  readonly headers?: Headers
  readonly body?: ReadonlyJson<Static<Body>>
}

export interface Call<Params extends TSchema, Query extends TSchema, Body extends TSchema> {
  readonly exchange: Exchange
  /** Decoded and checked against the schemas. */
  readonly params: Static<Params>
  readonly query: Static<Query>
  readonly body: Static<Body>
}

export interface Declaration<
  Params extends TSchema = TSchema,
  Query extends TSchema = TSchema,
  Body extends TSchema = TSchema,
  Answered extends TSchema = TSchema,
> {
  /** Labels metrics and log lines. All methods of one URL share it. */
  readonly name: string
  readonly method: Exclude<Method, 'HEAD'>
  /** `:id` is a segment or a part of one; `*id` at the end is the rest. GET routes also answer HEAD. */
  readonly url: string
  readonly need: Extract<RouteNeed, 'nothing' | 'reader' | 'admin'>
  /** The name of the operation in generated clients. */
  readonly operationId: string
  readonly tag: string
  readonly summary: string
  readonly description?: string
  readonly params?: Params
  /** Parameters that the schema does not name are ignored. */
  readonly query?: Query
  /** If absent, the route does not read a body. */
  readonly body?: Body
  /** The status on success. */
  readonly status: number
  readonly reply: Reply<Answered>
  /** Error codes in addition to those implied by the need and by the inputs of the route (document.ts). */
  readonly errors?: readonly ErrorCode[]
  /** Returns undefined if the handler has written the reply itself. */
  handle(call: Call<Params, Query, Body>): Promise<Answer<Answered> | undefined>
}

/** The config that fastify keeps with each route. */
export interface AdminRouteConfig {
  readonly match: Match<Needed>
  /** Absent if the URL does not have this method. */
  readonly declaration?: Declaration
}

/** Checks the types of a declaration against each other. */
export function declare<
  Params extends TSchema,
  Query extends TSchema,
  Body extends TSchema,
  Answered extends TSchema,
>(declaration: Declaration<Params, Query, Body, Answered>): Declaration {
  return declaration as unknown as Declaration
}

type ReadonlyJson<T> = T extends readonly (infer Item)[]
  ? readonly ReadonlyJson<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: ReadonlyJson<T[Key]> }
    : T
