// An HTTP proxy between Portolan and an object store. It counts requests and injects faults on demand. It passes
// everything else unchanged, including Host, so that signatures stay valid.

import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

export type Harm =
  /** No response is ever sent. */
  | { kind: 'black hole' }
  /** Responds with this, and the request does not reach the store. */
  | { kind: 'status'; status: number; code: string }
  | { kind: 'latency'; ms: number }
  /** Resets the connection after this many bytes of the request body. */
  | { kind: 'reset request'; afterBytes: number }
  /** Resets the connection after this many bytes of the response body. */
  | { kind: 'reset answer'; afterBytes: number }
  /** Closes the connection cleanly, but too early. */
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
  /** The largest number of concurrent connections. */
  connectionsMax(): number
  /** Returns the fault for a request, or undefined to let it pass. */
  harm: (request: StoreRequest) => Harm | undefined
  /** Removes the faults and clears the list of requests. */
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
