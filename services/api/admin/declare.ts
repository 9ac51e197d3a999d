// A route of /api/v1: one declaration with what it needs, takes and answers. From it come the routing, the validation, the
// serialisation and the OpenAPI document. To add a route, write one in the file of its noun and list it in routes.ts.

import type { Static, TSchema } from 'typebox'
import type { ErrorCode } from '#shared/errors.ts'
import type { Method, RouteNeed } from '../authorize.ts'
import type { Exchange, Headers } from '../exchange.ts'
import type { Match, Needed } from '../route.ts'

/** How a route answers when all goes well. */
export interface Reply<Body extends TSchema> {
  readonly description: string
  /** Absent for an answer without a body. */
  readonly body?: Body
  /** `application/json` unless it says more. */
  readonly contentType?: string
  /** Header fields -> what they say. */
  readonly headers?: Readonly<Record<string, string>>
  /** Content types that the handler writes itself -> what they hold. */
  readonly streams?: Readonly<Record<string, string>>
}

/** What a handler returns. The body is plain JSON: what the schema does not name is not sent. */
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
  /** Labels metrics and log lines. Methods of one URL share it. */
  readonly name: string
  readonly method: Exclude<Method, 'HEAD'>
  /** `:id` is a segment or a part of one; `*id` at the end is the rest. HEAD is answered where GET is. */
  readonly url: string
  readonly need: Extract<RouteNeed, 'nothing' | 'reader' | 'admin'>
  /** The name of the call in generated clients. */
  readonly operationId: string
  readonly tag: string
  readonly summary: string
  readonly description?: string
  readonly params?: Params
  /** Parameters that it does not name are ignored. */
  readonly query?: Query
  /** Without one, the route reads no body. */
  readonly body?: Body
  /** The status of success. */
  readonly status: number
  readonly reply: Reply<Answered>
  /** Beside those that follow from the need and from what the route takes (document.ts). */
  readonly errors?: readonly ErrorCode[]
  /** Returns undefined when it has written the answer itself. */
  handle(call: Call<Params, Query, Body>): Promise<Answer<Answered> | undefined>
}

/** What fastify keeps with each route. */
export interface AdminRouteConfig {
  readonly match: Match<Needed>
  /** Absent where a URL has no such method. */
  readonly declaration?: Declaration
}

/** Checks a declaration's types against each other. */
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
