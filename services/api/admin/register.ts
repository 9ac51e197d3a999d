// Registers the routes of /api/v1 with fastify: routing, validation, serialisation and the OpenAPI document, all from
// the declarations. The order of steps is the same as on every surface (pipeline.ts). The first hook enters the
// request, before fastify reads its body. Then fastify reads the body and validates it. The result of the handler is
// written like every other reply.
//
// One place handles the errors of fastify's phases and of the handlers, and renders them as the error envelope.

import { METHODS } from 'node:http'
import swagger from '@fastify/swagger'
import type { FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods } from 'fastify'
import type { TSchema } from 'typebox'
import { parseQuery } from '#shared/oci/query.ts'
import { replyError } from '../error-reply.ts'
import { type Exchange, registryHeaders, sendBytes, sendEmpty } from '../exchange.ts'
import { enter } from '../pipeline.ts'
import { fixedMatch, type Methods, type Needed, requireNeeds } from '../route.ts'
import type { AdminRouteConfig, Answer, Declaration } from './declare.ts'
import { documentOptions } from './document.ts'
import { readJson } from './json-body.ts'
import { createSerializerCompiler, createValidatorCompiler } from './schema-compilers.ts'
import { JSON_TYPE, sharedSchemas } from './shapes.ts'

export interface AdminOptions {
  readonly routes: readonly Declaration[]
  /** Creates and records the exchange of a request. */
  readonly begin: (request: FastifyRequest, reply: FastifyReply) => Exchange
}

/** @throws Error if a route declares no need */
export async function registerAdmin(scope: FastifyInstance, options: AdminOptions): Promise<void> {
  const exchanges = new WeakMap<FastifyRequest, Exchange>()
  const exchangeOf = (request: FastifyRequest): Exchange => {
    const exchange = exchanges.get(request)
    if (exchange === undefined) throw new Error('a request was not entered')
    return exchange
  }
  await scope.register(swagger, documentOptions())
  for (const schema of sharedSchemas) scope.addSchema(schema)
  scope.setValidatorCompiler(createValidatorCompiler())
  scope.setSerializerCompiler(createSerializerCompiler())
  scope.setErrorHandler((thrown, request, reply) => {
    reply.hijack()
    replyError(exchangeOf(request), thrown)
  })
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser(JSON_TYPE, async (request: FastifyRequest) =>
    request.routeOptions.schema?.body === undefined ? undefined : readJson(exchangeOf(request)),
  )
  scope.addHook('onRequest', (request, reply, done) => {
    const exchange = options.begin(request, reply)
    exchanges.set(request, exchange)
    // A body is always JSON here, so a Content-Type that is absent, malformed or that of a form is ignored.
    request.headers = { 'content-type': JSON_TYPE }
    const goOn = () => {
      // The client has disconnected, so no work is started.
      if (exchange.response.destroyed) reply.hijack()
      else done()
    }
    const refuse = (thrown: unknown) => {
      reply.hijack()
      replyError(exchange, thrown)
    }
    const { match } = request.routeOptions.config as unknown as AdminRouteConfig
    let entering: Promise<void> | undefined
    try {
      entering = enter(exchange, match(request.raw.url ?? ''))
    } catch (thrown) {
      return refuse(thrown)
    }
    if (entering === undefined) goOn()
    else entering.then(goOn, refuse)
  })
  // fastify's own parser turns a plus sign into a space and accepts broken percent-encoding.
  scope.addHook('preValidation', async (request) => {
    const { url = '' } = request.raw
    const mark = url.indexOf('?')
    request.query = parseQuery(mark === -1 ? '' : url.slice(mark + 1)).toObject()
  })
  for (const [url, declarations] of Map.groupBy(options.routes, (route) => route.url)) {
    registerUrl(scope, url, {
      declarations,
      handler: (declaration) => async (request, reply) => {
        reply.hijack()
        await answer(exchangeOf(request), { declaration, request, reply })
      },
    })
  }
}

type Handler = (request: FastifyRequest, reply: FastifyReply) => Promise<void>

/**
 * Registers all methods of one URL: the declared ones, HEAD if there is a GET, and a refusal for every other method.
 */
function registerUrl(
  scope: FastifyInstance,
  declaredUrl: string,
  options: {
    declarations: readonly Declaration[]
    handler(declaration: Declaration): Handler
  },
): void {
  const { declarations, handler } = options
  const name = declarations[0]?.name ?? ''
  const [, rest] = /\*([a-z]+)$/.exec(declaredUrl) ?? []
  const url = rest === undefined ? declaredUrl : declaredUrl.slice(0, -rest.length)
  const methods: Methods<Needed> = Object.fromEntries(
    declarations.flatMap((declaration) => {
      const { method, need } = declaration
      return (method === 'GET' ? ['GET', 'HEAD'] : [method]).map((each) => [each, { need }])
    }),
  )
  requireNeeds(name, methods)
  const match = fixedMatch({ name, methods }, url)
  for (const declaration of declarations) {
    const { method, params, query, body, status, reply } = declaration
    const contentType = reply.contentType ?? JSON_TYPE
    const schema = {
      ...(params && { params }),
      ...(query && { querystring: query }),
      ...(body && { body }),
      ...(reply.body && { response: { [status]: { content: { [contentType]: { schema: reply.body } } } } }),
    }
    const config = { match, declaration } satisfies AdminRouteConfig
    const preValidation = rest === undefined ? [] : [nameRest(rest)]
    const route = { url, schema, config: config as object, preValidation, handler: handler(declaration) }
    scope.route({ ...route, method })
    if (method === 'GET') scope.route({ ...route, schema: { ...schema, hide: true }, method: 'HEAD' })
  }
  const others = METHODS.filter((method) => !Object.hasOwn(methods, method)) as HTTPMethods[]
  const config = { match } satisfies AdminRouteConfig
  scope.route({ url, method: others, schema: { hide: true }, config: config as object, handler: unreachable })
}

/** The router names the rest of a path `*`. */
function nameRest(name: string) {
  return async (request: FastifyRequest): Promise<void> => {
    request.params = { [name]: (request.params as { '*': string })['*'] }
  }
}

function unreachable(): never {
  throw new Error('a method that is not declared is refused before its handler')
}

/** Never rejects. */
async function answer(
  exchange: Exchange,
  options: { declaration: Declaration; request: FastifyRequest; reply: FastifyReply },
): Promise<void> {
  const { declaration, request, reply } = options
  try {
    const { params, query, body } = request
    const answered = await declaration.handle({ exchange, params, query, body })
    if (answered !== undefined) send(exchange, { declaration, reply, answered })
  } catch (thrown) {
    replyError(exchange, thrown)
  }
}

function send(
  exchange: Exchange,
  options: { declaration: Declaration; reply: FastifyReply; answered: Answer<TSchema> },
): void {
  const { declaration, reply, answered } = options
  const { status } = declaration
  const contentType = declaration.reply.contentType ?? JSON_TYPE
  if (declaration.reply.body === undefined) {
    sendEmpty(exchange, status, answered.headers)
    return
  }
  const body = answered.body as Record<string, unknown>
  const text = String(reply.serializeInput(body, String(status), contentType))
  const headers = { ...registryHeaders(), 'Content-Type': contentType, ...answered.headers }
  sendBytes(exchange, { status, headers, body: Buffer.from(text) })
}
