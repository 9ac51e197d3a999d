// The HTTP application: fastify routes the requests of every surface.
//
// /v2, /peer, /token and health need exact control where frameworks add conveniences: bodies of any or no type, bare
// media types, HEAD like GET, targets that must not be decoded. So the pipeline takes these requests over in fastify's
// first hook, before fastify looks at methods, types or bodies. /api/v1 uses fastify throughout (admin/register.ts),
// with the same steps. Every method that Node's parser knows is routed, so that a wrong method gets our own error
// reply. A route that does not declare its needs cannot be registered.

import { type IncomingMessage, METHODS, type ServerResponse } from 'node:http'
import Fastify, { type FastifyInstance } from 'fastify'
import { createAddressMatcher } from '#shared/auth/challenge.ts'
import { registerAdmin } from './admin/register.ts'
import { adminRoutes } from './admin/routes.ts'
import type { Edge } from './edge.ts'
import { Exchange } from './exchange.ts'
import { fixedRoutes } from './fixed-routes.ts'
import { run } from './pipeline.ts'
import { type Declared, fixedMatch, type Match, requireNeeds, unknownRoute } from './route.ts'
import { matchRegistry, registryRoutes } from './v2/dispatch.ts'

/** Longer than any target we accept, so that the pipeline rejects parameters that are too long. */
const PARAMETER_LENGTH_MAX = 64 * 1024

type RawMatch = Match<Declared<never>>

export interface AppOptions {
  readonly edge: Edge
  /** Called with each exchange before any work is done for it. */
  readonly begin: (exchange: Exchange) => void
  /** The routes of /api/v1. A test may observe their handlers. */
  readonly routes?: typeof adminRoutes
}

/** @throws Error if a route declares no need, whether it is added now or later */
export function buildApp({ edge, begin, routes = adminRoutes }: AppOptions): FastifyInstance {
  const exchangeOf = exchangeMaker(edge)
  const beginExchange = (request: IncomingMessage, response: ServerResponse): Exchange => {
    const exchange = exchangeOf(request, response)
    begin(exchange)
    return exchange
  }
  const take = (request: IncomingMessage, response: ServerResponse, match: RawMatch): void => {
    // `run` handles every error itself and never rejects.
    void run(beginExchange(request, response), match(request.url ?? ''))
  }
  const app = Fastify({
    logger: false,
    routerOptions: {
      ignoreDuplicateSlashes: false,
      maxParamLength: PARAMETER_LENGTH_MAX,
      // Queries are parsed later, where an error can be returned to the client.
      querystringParser: () => NO_QUERY,
    },
    exposeHeadRoutes: false,
    return503OnClosing: false,
    // Called for targets that cannot be decoded. The pipeline never decodes them.
    frameworkErrors: (_error, request, reply) => {
      reply.hijack()
      take(request.raw, reply.raw, matchUnrouted)
    },
  })
  for (const method of METHODS) app.addHttpMethod(method, { hasBody: true, overrideExisting: true })
  app.addHook('onRoute', ({ url, config }) => {
    if (typeof (config as { match?: unknown } | undefined)?.match !== 'function') {
      throw new Error(`the route ${url} is not declared: it would ask nobody for anything`)
    }
  })
  app.addHook('onRequest', (request, reply, done) => {
    const { match, raw } = request.routeOptions.config as { match?: RawMatch; raw?: true }
    // The route belongs to /api/v1, whose own hook runs next.
    if (match !== undefined && raw !== true) return done()
    reply.hijack()
    take(request.raw, reply.raw, match ?? matchUnrouted)
  })
  const register = (url: string, match: RawMatch) =>
    app.route({ method: [...METHODS], url, config: { match, raw: true } as object, handler: unreachable })
  for (const [name, methods] of Object.entries(registryRoutes)) requireNeeds(name, methods)
  register('/v2', matchRegistry)
  register('/v2/*', matchRegistry)
  for (const route of fixedRoutes) {
    requireNeeds(route.name, route.methods)
    register(route.url, fixedMatch(route, route.url))
  }
  app.setNotFoundHandler(unreachable)
  app.register(async (scope) => {
    await registerAdmin(scope, {
      routes: routes(() => scope.swagger()),
      begin: ({ raw }, reply) => beginExchange(raw, reply.raw),
    })
  })
  return app
}

const NO_QUERY = Object.freeze({})

function unreachable(): never {
  throw new Error('the pipeline takes every request over before its handler')
}

/** A target without a route in the router is unknown, or is a target under /v2 that only our own match understands. */
function matchUnrouted(target: string): ReturnType<RawMatch> {
  return /^\/v2(?:[/?]|$)/.test(target) ? matchRegistry(target) : unknownRoute()
}

function exchangeMaker(edge: Edge) {
  const trusted = createAddressMatcher(edge.region.config.trustedProxies)
  const instance = edge.region.instance.slice(0, 8)
  let count = 0
  return (request: IncomingMessage, response: ServerResponse): Exchange => {
    const peer = request.socket.remoteAddress ?? ''
    const byProxy = trusted(peer)
    return new Exchange({
      edge,
      request,
      response,
      requestId: `${instance}-${++count}`,
      remoteAddress: byProxy ? forwardedFor(request, peer, trusted) : peer,
      trusted: byProxy,
    })
  }
}

/** The last address in X-Forwarded-For that does not belong to a trusted proxy. */
function forwardedFor(request: IncomingMessage, peer: string, trusted: (address: string) => boolean): string {
  const header = request.headers['x-forwarded-for']
  const addresses = (typeof header === 'string' ? header : (header?.join(',') ?? '')).split(',').slice(-32)
  return (
    addresses.map((address) => address.trim()).findLast((address) => address !== '' && !trusted(address)) ??
    peer
  )
}
