// An HTTP proxy between Portolan and an object store that counts requests and does harm on demand. Everything passes
// unchanged, Host included, so signatures stay valid.

import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

export type Harm =
  /** Nothing ever comes back. */
  | { kind: 'black hole' }
  /** The answer is this and nothing reaches the store. */
  | { kind: 'status'; status: number; code: string }
  | { kind: 'latency'; ms: number }
  /** The connection is reset after so many bytes of the request's body. */
  | { kind: 'reset request'; afterBytes: number }
  /** The connection is reset after so many bytes of the answer's body. */
  | { kind: 'reset answer'; afterBytes: number }
  /** The connection is closed in order, but too early. */
  | { kind: 'truncate answer'; afterBytes: number }
  | { kind: 'corrupt request' }
  | { kind: 'corrupt answer' }

export interface StoreRequest {
  readonly method: string
  readonly path: string
  readonly query: string
}

export interface StoreProxy extends AsyncDisposable {
  readonly url: string
  readonly requests: StoreRequest[]
  /** Most connections that were open at once. */
  connectionsMax(): number
  /** Decides for each request; undefined lets it pass. */
  harm: (request: StoreRequest) => Harm | undefined
  /** Back to doing nothing, and with an empty list of requests. */
  heal(): void
}

export async function startStoreProxy(upstream: { port: number }): Promise<StoreProxy> {
  const requests: StoreRequest[] = []
  const sockets = new Set<Socket>()
  let most = 0
  const server = createServer((incoming, outgoing) => {
    const [path = '', query = ''] = (incoming.url ?? '').split('?')
    const seen = { method: incoming.method ?? '', path, query }
    requests.push(seen)
    pass(incoming, outgoing, upstream.port, proxy.harm(seen)).catch(() => outgoing.destroy())
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    most = Math.max(most, sockets.size)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
  })
  server.requestTimeout = 0
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const proxy: StoreProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    connectionsMax: () => most,
    harm: () => undefined,
    heal() {
      proxy.harm = () => undefined
      requests.length = 0
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((closed) => server.close(closed))
    },
  }
  return proxy
}

async function pass(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  port: number,
  harm: Harm | undefined,
): Promise<void> {
  if (harm?.kind === 'black hole') return void incoming.resume()
  if (harm?.kind === 'status') {
    incoming.resume()
    const body = `<?xml version="1.0"?><Error><Code>${harm.code}</Code><Message>harm</Message></Error>`
    outgoing.writeHead(harm.status, { 'Content-Type': 'application/xml', 'Content-Length': body.length })
    return void outgoing.end(body)
  }
  if (harm?.kind === 'latency') await pause(harm.ms)
  const forwarded = request({
    host: '127.0.0.1',
    port,
    method: incoming.method,
    path: incoming.url,
    headers: incoming.headers,
  })
  forwarded.on('error', () => outgoing.destroy())
  const answered = once(forwarded, 'response') as Promise<[IncomingMessage]>
  answered.catch(() => {})
  let taken = 0
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    if (harm?.kind === 'corrupt request' && taken === 0) chunk[0] = (chunk[0] ?? 0) ^ 1
    taken += chunk.length
    if (harm?.kind === 'reset request' && taken > harm.afterBytes) {
      forwarded.destroy()
      return void incoming.socket.resetAndDestroy()
    }
    if (!forwarded.write(chunk)) await once(forwarded, 'drain')
  }
  forwarded.end()
  const [answer] = await answered
  outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
  let sent = 0
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    if (harm?.kind === 'corrupt answer' && sent === 0) chunk[0] = (chunk[0] ?? 0) ^ 1
    sent += chunk.length
    if ((harm?.kind === 'reset answer' || harm?.kind === 'truncate answer') && sent > harm.afterBytes) {
      answer.destroy()
      if (harm.kind === 'reset answer') incoming.socket.resetAndDestroy()
      else incoming.socket.end()
      return
    }
    if (!outgoing.write(chunk)) await once(outgoing, 'drain')
  }
  outgoing.end()
}
