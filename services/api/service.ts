// The API service: listens, answers, drains. It holds no state of its own: any number of them may serve one region.
//
// Draining: readiness turns to 503 at once, no new connections are taken, idle ones are closed, requests under way
// have PORTOLAN_DRAIN_SECONDS to finish, and then their connections are cut.

import { createServer, type Server } from 'node:http'
import type { Socket } from 'node:net'
import { startLoop } from '#shared/loop.ts'
import { listenAll } from '#shared/observability/listen.ts'
import type { Region } from '#shared/region.ts'
import type { Service } from '#shared/service.ts'
import { type AppState, buildApp, refuseUnparsable } from './app.ts'
import { createEventTail } from './event-tail.ts'

/** Tokens and cookies of proxies can be large; Node's default of 16 KiB refuses some. */
const HEADER_BYTES_MAX = 32 * 1024
const HEADERS_TIMEOUT_MS = 30_000
/** Longer than balancers keep theirs, so that they close first and no request meets a closing socket. */
const KEEP_ALIVE_TIMEOUT_MS = 75_000

export interface ApiService extends Service {
  readonly port: number
}

export async function startApi(region: Region, options: { reusePort?: boolean } = {}): Promise<ApiService> {
  const state: AppState = { draining: false }
  const tail = createEventTail(region)
  const app = buildApp(region, state, tail)
  await app.ready()
  const sockets = new Set<Socket>()
  const make = (): Server => {
    const server = createServer(
      {
        maxHeaderSize: HEADER_BYTES_MAX,
        headersTimeout: HEADERS_TIMEOUT_MS,
        keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
        // Uploads take as long as they take; the minimum rate guards them.
        requestTimeout: 0,
      },
      app.routing,
    )
    // Without this Node tells every client that asks to send its body before we looked at the request.
    server.on('checkContinue', app.routing)
    server.on('clientError', refuseUnparsable)
    server.on('connection', (socket: Socket) => {
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
    })
    return server
  }
  const { servers, port } = await listenAll(
    { ...region.config.listen, ...(options.reusePort === true && { reusePort: true }) },
    make,
  )
  const pulls = writePulls(region)
  return {
    name: 'api',
    port,
    async [Symbol.asyncDispose]() {
      if (state.draining) return
      state.draining = true
      await tail[Symbol.asyncDispose]()
      await Promise.all(servers.map((server) => drain(server, region.config.drainSeconds * 1_000, sockets)))
      await app.close()
      await pulls?.[Symbol.asyncDispose]()
    },
  }
}

/** Counted pulls to the outbox, every so often and once more at the end. */
function writePulls(region: Region): AsyncDisposable | undefined {
  const { pulls } = region
  if (pulls === undefined) return undefined
  const write = async () => void (await pulls.write(region.db, region.instance))
  const onError = (error: unknown) =>
    region.logFailure(error, 'counted pulls could not be written; they are counted on')
  const loop = startLoop({ everyMs: region.config.events.pullSeconds * 1_000, run: write, onError })
  return {
    async [Symbol.asyncDispose]() {
      await loop[Symbol.asyncDispose]()
      await write().catch(onError)
    },
  }
}

/** How often connections that have become idle are closed: a kept-alive one would hold the process for its timeout. */
const IDLE_LOOK_MS = 50

async function drain(server: Server, drainMs: number, sockets: ReadonlySet<Socket>): Promise<void> {
  const closed = new Promise((done) => server.close(done))
  const idle = setInterval(() => {
    server.closeIdleConnections()
    // Connections that clients opened in advance are not idle to Node before they were used once.
    for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy()
  }, IDLE_LOOK_MS)
  const cut = setTimeout(() => server.closeAllConnections(), drainMs)
  await closed
  clearInterval(idle)
  clearTimeout(cut)
}
