// One request and its reply, as handlers see them.
//
// Replies are written to the raw response: the protocol requires exact headers (a bare media type, Content-Length on
// everything, HEAD like GET), and frameworks add to them. Each reply is one writeHead and at most one write, except for
// streamed blobs. The exchange carries everything a handler needs; nothing is looked up in the framework. A reply that
// leaves the body of the request unread closes the connection.

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
  /** The address of the client: that of the socket, or the one that a trusted proxy reports. */
  readonly remoteAddress: string
  /** True if the peer of the socket is a trusted proxy. */
  readonly trusted: boolean
  /** The caller; NOBODY until the request is authenticated. */
  identity: Identity = NOBODY
  /** The region that signed the request. */
  peer: string | undefined
  /** For the log and the error counters. */
  errorCode: string | undefined
  /** Content-Length of the reply, for the log. */
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

  /** Aborts when the client disconnects. Created on first use, because most replies come from memory. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      const abort = new AbortController()
      this.#abort = abort
      if (this.response.destroyed) abort.abort()
      else {
        // A complete reply also emits 'close'. Nothing is left to abort then, and an abort has a cost.
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

/** Writes the head of every reply. */
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

/** Sends a reply whose body is in memory. HEAD gets the same headers without the body. */
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

/** Sends a reply without a body. 204 and 304 have no Content-Length (RFC 9110, 8.6); every other status has 0. */
export function sendEmpty(exchange: Exchange, status: number, headers: Headers = {}): void {
  const length: Headers = status === 204 || status === 304 ? {} : { 'Content-Length': 0 }
  writeHead(exchange, status, { ...registryHeaders(), ...headers, ...length })
  exchange.response.end()
}

/**
 * Headers of every reply under /v2/. Clients from the docker era check the version. Replies without content (lists,
 * sessions, errors) have no-store: a shared cache configured to keep replies by default once kept a 401 and returned it
 * to clients that may pull.
 */
export function registryHeaders(): Headers {
  return {
    'Cache-Control': 'no-store',
    'Docker-Distribution-API-Version': 'registry/2.0',
    'X-Content-Type-Options': 'nosniff',
  }
}

/** What outbox rows record of the request. Bounded, because header values come from the client. */
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

/** The position of a write in the log of the region, for clients that wait until other regions have it. */
export function positionHeader(exchange: Exchange, { epoch, outboxId }: WritePosition): Headers {
  return { 'Portolan-Position': `${exchange.region.name}:${epoch}:o${outboxId}` }
}
