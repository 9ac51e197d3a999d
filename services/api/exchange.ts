// One request and its answer, as handlers see them.
//
// Answers are written to the raw response: the protocol wants exact headers (a bare media type, Content-Length on
// everything, HEAD like GET), and frameworks add to them. Each answer is one writeHead and at most one write, except
// streamed blobs. What a handler needs arrives here; nothing is looked up from the framework. An answer that leaves the
// request's body unread closes the connection.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { ANONYMOUS, type Identity } from '#shared/auth/access.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import type { WritePosition } from '#shared/db/registers.ts'
import type { Region } from '#shared/region.ts'
import type { Registry } from '#shared/registry/registry.ts'
import type { Edge } from './edge.ts'
import { bodyIsUnread, linger } from './unread-body.ts'

export class Exchange {
  readonly edge: Edge
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly requestId: string
  /** The client's address: the socket's, or what a trusted proxy says. */
  readonly remoteAddress: string
  /** The socket's peer is a trusted proxy. */
  readonly trusted: boolean
  /** Who asks; nobody until the request is authenticated. */
  identity: Identity = NOBODY
  /** The region that signed the request. */
  peer: string | undefined
  /** For the log and the error counters. */
  errorCode: string | undefined
  /** Content-Length of the answer, for the log. */
  bodyBytes = 0
  #abort: AbortController | undefined

  constructor(
    options: Pick<Exchange, 'edge' | 'request' | 'response' | 'requestId' | 'remoteAddress' | 'trusted'>,
  ) {
    this.edge = options.edge
    this.request = options.request
    this.response = options.response
    this.requestId = options.requestId
    this.remoteAddress = options.remoteAddress
    this.trusted = options.trusted
  }

  get region(): Region {
    return this.edge.region
  }

  get registry(): Registry {
    return this.edge.registry
  }

  /** Aborts when the client goes away. Made when first asked for: most answers come from memory. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      const abort = new AbortController()
      this.#abort = abort
      if (this.response.destroyed) abort.abort()
      else {
        // An answer that went out whole also closes: nothing is left to abort then, and an abort is not for free.
        this.response.once('close', () => {
          if (!this.response.writableFinished) abort.abort()
        })
      }
    }
    return this.#abort.signal
  }
}

const NOBODY: Identity = Object.freeze({ actor: ANONYMOUS, scopes: undefined })

export type Headers = Record<string, string | number | string[]>

export function isHead(exchange: Exchange): boolean {
  return exchange.request.method === 'HEAD'
}

/** The head of every answer. */
export function writeHead(exchange: Exchange, status: number, headers: Headers): void {
  const { request, response } = exchange
  if (!bodyIsUnread(request)) {
    response.writeHead(status, headers)
    return
  }
  headers.Connection = 'close'
  response.writeHead(status, headers)
  linger(request, response)
}

/** An answer with a body that is in memory; HEAD gets the same headers without it. */
export function sendBytes(
  exchange: Exchange,
  answer: { status: number; headers: Headers; body: Buffer },
): void {
  const { response } = exchange
  const headers = answer.headers
  headers['Content-Length'] = answer.body.length
  if (!isHead(exchange)) exchange.bodyBytes = answer.body.length
  writeHead(exchange, answer.status, headers)
  if (isHead(exchange) || answer.status === 304) response.end()
  else response.end(answer.body)
}

export function sendJson(
  exchange: Exchange,
  body: unknown,
  options: { status?: number; headers?: Headers } = {},
): void {
  sendBytes(exchange, {
    status: options.status ?? 200,
    headers: { ...registryHeaders(), 'Content-Type': 'application/json', ...options.headers },
    body: Buffer.from(JSON.stringify(body)),
  })
}

/** An answer without a body. 204 and 304 have no Content-Length (RFC 9110, 8.6); everything else says 0. */
export function sendEmpty(exchange: Exchange, status: number, headers: Headers = {}): void {
  const length: Headers = status === 204 || status === 304 ? {} : { 'Content-Length': 0 }
  writeHead(exchange, status, { ...registryHeaders(), ...headers, ...length })
  exchange.response.end()
}

/**
 * On every answer under /v2/: clients of the docker era look for the version. What is not content (lists, sessions,
 * errors) says no-store: a shared cache that is told to keep answers by default kept a 401 for those who may pull.
 */
export function registryHeaders(): Headers {
  return {
    'Cache-Control': 'no-store',
    'Docker-Distribution-API-Version': 'registry/2.0',
    'X-Content-Type-Options': 'nosniff',
  }
}

/** What outbox rows tell of the request. Bounded: header values are the client's. */
export function provenanceOf(exchange: Exchange): Provenance {
  const { headers, method } = exchange.request
  return {
    actor: exchange.identity.actor.kind === 'account' ? exchange.identity.actor.name : '',
    request: {
      id: exchange.requestId,
      addr: exchange.remoteAddress,
      host: (headers.host ?? '').slice(0, 255),
      method: method ?? '',
      userAgent: (headers['user-agent'] ?? '').slice(0, 255),
    },
    traceparent: traceparentOf(headers.traceparent),
    instance: exchange.region.instance,
  }
}

/** https://www.w3.org/TR/trace-context/#traceparent-header */
const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/

function traceparentOf(header: string | string[] | undefined): string | null {
  return typeof header === 'string' && TRACEPARENT.test(header) ? header : null
}

/** The position of a write in the region's log, for clients that wait until other regions have it. */
export function positionHeader(exchange: Exchange, { epoch, outboxId }: WritePosition): Headers {
  return { 'Portolan-Position': `${exchange.region.name}:${epoch}:o${outboxId}` }
}
