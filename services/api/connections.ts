// Tracks the connections of one API service and the exchanges on each. It answers requests that Node's parser rejects
// without writing into another reply, drains connections, and notifies every exchange when its connection closes.
//
// Replies on one connection are sent in the order of their requests. So a refusal is written only when no exchange is
// in progress; until then it waits for the last reply. If the body of a request becomes malformed, its own exchange
// answers.

import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import { RegistryError } from '#shared/errors.ts'
import { logRequest } from '#shared/observability/log.ts'
import type { Region } from '#shared/region.ts'
import { replyError } from './error-reply.ts'
import type { Exchange } from './exchange.ts'

/** A refused client has this long to receive its reply and disconnect. */
const REFUSED_MS = 1_000
/**
 * Interval at which idle connections are closed during a drain. A kept-alive connection would delay the end of the
 * process by its timeout.
 */
const IDLE_LOOK_MS = 50

/** A reply to input that is not a valid request. */
interface Refusal {
  readonly status: 400 | 405 | 408 | 431
  readonly code: 'REQUEST_INVALID' | 'UNSUPPORTED'
  readonly message: string
}

interface Connection {
  readonly exchanges: Set<Exchange>
  refused: boolean
}

const REASONS = Object.freeze({
  400: 'Bad Request',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
})

export interface Connections {
  /** Tracks the connections of the server, answers what its parser rejects, and handles CONNECT. */
  follow(server: Server): void
  /** Records an exchange until its reply is sent or its client has disconnected. */
  begin(exchange: Exchange): void
  /** From now on every reply has `Connection: close`, including those of requests in progress. */
  closeWhenAnswered(): void
  /** Resolves when the server has no connection left. Connections that are still open after `drainMs` are cut. */
  drain(server: Server, drainMs: number): Promise<void>
}

export function createConnections(region: Region): Connections {
  const connections = new Map<Socket, Connection>()
  let closing = false
  let refusals = 0

  function opened(socket: Socket): void {
    const connection: Connection = { exchanges: new Set(), refused: false }
    connections.set(socket, connection)
    socket.once('close', () => {
      connections.delete(socket)
      // Node notifies only the response that is currently being sent. Responses queued behind it would not be notified.
      setImmediate(() => {
        for (const { response } of connection.exchanges) {
          response.destroy()
          response.emit('close')
        }
      })
    })
  }

  function unparsable(error: NodeJS.ErrnoException, socket: Socket): void {
    const connection = connections.get(socket)
    // The connection is closed or was never used, so there is no request to answer.
    if (
      connection === undefined ||
      error.code === 'ECONNRESET' ||
      error.code === 'EPIPE' ||
      socket.bytesRead === 0
    ) {
      socket.destroy()
      return
    }
    // The parser reports an error for every byte that follows.
    if (connection.refused) return
    connection.refused = true
    const broken = [...connection.exchanges].find(({ request }) => !request.complete)
    if (broken === undefined) {
      refuse(socket, connection, refusalOf(error))
    } else if (!broken.response.headersSent) {
      const message = 'the body of the request cannot be read'
      replyError(broken, new RegistryError('REQUEST_INVALID', { message, closeConnection: true }))
    }
  }

  /** Writes the refusal after every earlier reply has been sent. */
  function refuse(socket: Socket, connection: Connection, refusal: Refusal): void {
    const left = [...connection.exchanges].at(-1)
    if (left !== undefined) {
      left.response.once('close', () => refuse(socket, connection, refusal))
      return
    }
    if (!socket.writable) {
      // The last reply closed the connection. Data that is still buffered is sent first.
      socket.destroySoon()
      return
    }
    const { status, code, message } = refusal
    const body = JSON.stringify({ errors: [{ code, message }] })
    const allow = status === 405 ? 'Allow: GET, HEAD, POST, PATCH, PUT, DELETE\r\n' : ''
    socket.end(
      `HTTP/1.1 ${status} ${REASONS[status]}\r\nContent-Type: application/json\r\n${allow}` +
        `Content-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
    )
    const timer = setTimeout(() => socket.destroy(), REFUSED_MS)
    timer.unref()
    socket.once('close', () => clearTimeout(timer))
    note(socket, refusal, body.length)
  }

  function note(socket: Socket, { status, code }: Refusal, bytes: number): void {
    region.metrics.request({ method: 'other', route: 'unparsable', status, seconds: 0, bytesOut: bytes })
    region.metrics.error(code)
    logRequest(region.log, {
      id: `${region.instance.slice(0, 8)}-x${++refusals}`,
      method: '',
      route: 'unparsable',
      repository: undefined,
      reference: undefined,
      status,
      bytes,
      durationMs: 0,
      actor: '',
      address: socket.remoteAddress ?? '',
      userAgent: undefined,
      code,
    })
  }

  return {
    follow(server) {
      server.on('connection', opened)
      server.on('clientError', unparsable)
      // Without a listener, Node closes the connection without a reply.
      server.on('connect', (_request, stream) => {
        const socket = stream as Socket
        const connection = connections.get(socket)
        socket.on('error', () => socket.destroy())
        if (connection === undefined || connection.refused) return
        connection.refused = true
        refuse(socket, connection, {
          status: 405,
          code: 'UNSUPPORTED',
          message: 'the method is not supported here',
        })
      })
    },
    begin(exchange) {
      const { request, response } = exchange
      const exchanges = connections.get(request.socket)?.exchanges
      exchanges?.add(exchange)
      response.once('close', () => exchanges?.delete(exchange))
      if (closing) response.setHeader('Connection', 'close')
    },
    closeWhenAnswered() {
      closing = true
      for (const { exchanges } of connections.values()) {
        for (const { response } of exchanges) {
          if (!response.headersSent) response.setHeader('Connection', 'close')
        }
      }
    },
    async drain(server, drainMs) {
      const closed = new Promise((done) => server.close(done))
      const idle = setInterval(() => {
        server.closeIdleConnections()
        // Node does not count connections as idle if clients opened them in advance and never used them.
        for (const socket of connections.keys()) if (socket.bytesRead === 0) socket.destroy()
      }, IDLE_LOOK_MS)
      const cut = setTimeout(() => {
        server.closeAllConnections()
        for (const socket of connections.keys()) socket.destroy()
      }, drainMs)
      await closed
      clearInterval(idle)
      clearTimeout(cut)
    },
  }
}

function refusalOf({ code }: NodeJS.ErrnoException): Refusal {
  const [status, message] =
    code === 'HPE_HEADER_OVERFLOW'
      ? ([431, 'the header fields of the request are too large'] as const)
      : code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ([408, 'the head of the request arrives too slowly'] as const)
        : ([400, 'the request cannot be read'] as const)
  return { status, code: 'REQUEST_INVALID', message }
}
