// The HTTP application: fastify as the router around one pipeline.
//
// The protocol is exact where frameworks are helpful: bodies of any or no type, bare media types, HEAD like GET, targets
// that must not be decoded, an envelope on every error. So the pipeline takes every request over in fastify's first hook,
// before it looks at methods, types or bodies; every method that Node's parser knows is routed, so that a wrong one is
// answered by us. A route that was not declared with its needs (routes.ts) cannot be registered.

import { type IncomingMessage, METHODS, type ServerResponse } from 'node:http'
import Fastify, { type FastifyInstance } from 'fastify'
import { createAddressMatcher } from '#shared/auth/challenge.ts'
import type { Edge } from './edge.ts'
import { Exchange } from './exchange.ts'
import { run } from './pipeline.ts'
import {
  fixedMatcher,
  fixedRoutes,
  type Matched,
  matchRegistry,
  registryRoutes,
  requireNeeds,
  unknownRoute,
} from './routes.ts'

/** Longer parameters than any target we take: what is too long is for the pipeline to say. */
const PARAMETER_LENGTH_MAX = 64 * 1024

type Match = (target: string) => Matched

export interface AppOptions {
  readonly edge: Edge
  /** Told of each exchange before anything is done for it. */
  readonly begin: (exchange: Exchange) => void
}

/** @throws Error for a route that declares no need, now or when one is added later */
export function buildApp({ edge, begin }: AppOptions): FastifyInstance {
  const exchangeOf = exchangeMaker(edge)
  const take = (request: IncomingMessage, response: ServerResponse, match: Match): void => {
    const exchange = exchangeOf(request, response)
    begin(exchange)
    // It answers everything itself and never rejects.
    void run(exchange, match(request.url ?? ''), edge)
  }
  const app = Fastify({
    logger: false,
    routerOptions: { ignoreDuplicateSlashes: false, maxParamLength: PARAMETER_LENGTH_MAX },
    exposeHeadRoutes: false,
    return503OnClosing: false,
    // Targets that cannot be decoded: the pipeline never decodes.
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
  app.addHook('onRequest', (request, reply) => {
    reply.hijack()
    const { match } = request.routeOptions.config as { match?: Match }
    take(request.raw, reply.raw, match ?? matchUnrouted)
  })
  const register = (url: string, match: Match) =>
    app.route({ method: [...METHODS], url, config: { match } as object, handler: unreachable })
  for (const [name, methods] of Object.entries(registryRoutes)) requireNeeds(name, methods)
  register('/v2', matchRegistry)
  register('/v2/*', matchRegistry)
  for (const route of fixedRoutes) {
    requireNeeds(route.name, route.methods)
    for (const url of route.urls) register(url, fixedMatcher(route, url))
  }
  app.setNotFoundHandler(unreachable)
  return app
}

function unreachable(): never {
  throw new Error('the pipeline takes every request over before its handler')
}

/** What the router found no route for is nothing, or something under /v2 that only our own match understands. */
function matchUnrouted(target: string): Matched {
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

/** The last address in X-Forwarded-For that is not itself a trusted proxy's. */
function forwardedFor(request: IncomingMessage, peer: string, trusted: (address: string) => boolean): string {
  const header = request.headers['x-forwarded-for']
  const addresses = (typeof header === 'string' ? header : (header?.join(',') ?? '')).split(',').slice(-32)
  return (
    addresses.map((address) => address.trim()).findLast((address) => address !== '' && !trusted(address)) ??
    peer
  )
}
