// The HTTP application: fastify around handlers that write raw answers.
//
// The protocol is exact where frameworks are helpful: bodies of any or no type, bare media types, HEAD like GET,
// targets that must not be decoded. So fastify routes by prefix and guards the edges (bad requests, unknown paths); its
// parsers, serializers and automatic HEAD are off, and every answer is written by exchange.ts after `hijack`.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { createAddressMatcher } from '#shared/auth/challenge.ts'
import { RegistryError } from '#shared/errors.ts'
import type { Region } from '#shared/region.ts'
import { dispatch } from './dispatch.ts'
import { replyError } from './error-reply.ts'
import type { EventTail } from './event-tail.ts'
import { Exchange } from './exchange.ts'
import { admin } from './routes/admin.ts'
import { events } from './routes/events.ts'
import { live, ready } from './routes/health.ts'
import { createPeerLog } from './routes/peer-log.ts'
import { schemas } from './routes/schemas.ts'
import { token } from './routes/token.ts'

export interface AppState {
  /** Set when the process drains: readiness says so. */
  draining: boolean
}

type Handle = (exchange: Exchange) => void | Promise<void>

export function buildApp(region: Region, state: AppState, tail: EventTail): FastifyInstance {
  const trusted = createAddressMatcher(region.config.trustedProxies)
  const instance = region.instance.slice(0, 8)
  let count = 0

  const exchangeOf = (request: IncomingMessage, response: ServerResponse): Exchange => {
    const peer = request.socket.remoteAddress ?? ''
    const byProxy = trusted(peer)
    return new Exchange({
      region,
      request,
      response,
      requestId: `${instance}-${++count}`,
      remoteAddress: byProxy ? forwardedFor(request, peer, trusted) : peer,
      trusted: byProxy,
    })
  }

  const registry = (request: FastifyRequest, reply: FastifyReply): void => {
    reply.hijack()
    // dispatch answers everything itself and never rejects.
    void dispatch(exchangeOf(request.raw, reply.raw))
  }
  const guarded =
    (handle: Handle) =>
    async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
      reply.hijack()
      const exchange = exchangeOf(request.raw, reply.raw)
      try {
        await handle(exchange)
      } catch (thrown) {
        replyError(exchange, thrown)
      }
    }

  const app = Fastify({
    logger: false,
    routerOptions: { ignoreDuplicateSlashes: false, maxParamLength: 8192 },
    exposeHeadRoutes: false,
    // Targets that cannot be decoded are for our own router to judge: it never decodes.
    frameworkErrors: (_error, request, reply) => registry(request as FastifyRequest, reply as FastifyReply),
  })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, _payload, done) => done(null))
  app.all('/v2', registry)
  app.all('/v2/*', registry)
  app.all('/token', guarded(token))
  app.all(
    '/api/v1/events',
    guarded((exchange) => events(exchange, tail)),
  )
  const peerLog = createPeerLog()
  app.all(
    '/peer/v1/log',
    guarded((exchange) => peerLog(exchange, tail)),
  )
  app.all('/api/v1/schemas', guarded(schemas))
  app.all('/api/v1/schemas/*', guarded(schemas))
  app.all('/api/v1/*', guarded(admin))
  app.get('/livez', guarded(live))
  app.get(
    '/readyz',
    guarded((exchange) => ready(exchange, state.draining)),
  )
  app.setNotFoundHandler((request, reply) => {
    if (/^\/v2(?:[/?]|$)/.test(request.raw.url ?? '')) return registry(request, reply)
    return guarded(() => {
      throw new RegistryError('NOT_FOUND')
    })(request, reply)
  })
  return app
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

/** What Node's parser refuses: a bad request line, headers beyond the limit, a head that takes too long. */
export function refuseUnparsable(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const [status, reason] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? [431, 'Request Header Fields Too Large']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? [408, 'Request Timeout']
        : [400, 'Bad Request']
  const body = JSON.stringify({
    errors: [{ code: 'REQUEST_INVALID', message: 'the request cannot be read' }],
  })
  socket.end(
    `HTTP/1.1 ${status} ${reason}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
  )
}
