// The API service: listens, serves, drains. It holds no state of its own, so any number of them may serve one region.
//
// Draining: readiness becomes 503 at once, no new connections are accepted, idle ones are closed, and event streams
// end. Requests in progress have PORTOLAN_DRAIN_SECONDS to finish; then their connections are cut. Replies have
// `Connection: close`.

import { createServer, type RequestListener, type Server } from 'node:http'
import { startLoop } from '#shared/loop.ts'
import { listenAll } from '#shared/observability/listen.ts'
import type { Region } from '#shared/region.ts'
import type { Registry } from '#shared/registry/registry.ts'
import type { Service } from '#shared/service.ts'
import { type AppOptions, buildApp } from './app.ts'
import { createConnections } from './connections.ts'
import { type Edge, openEdge } from './edge.ts'
import { toOriginForm } from './message-syntax.ts'

/** Tokens and proxy cookies can be large. Node's default of 16 KiB rejects some of them. */
const HEADER_BYTES_MAX = 32 * 1024
const HEADERS_TIMEOUT_MS = 30_000
/** Time for the last write of counted pulls. */
const LAST_WRITE_MS = 5_000
/**
 * Longer than the keep-alive time of load balancers, so that they close first and no request meets a closing socket.
 */
const KEEP_ALIVE_TIMEOUT_MS = 75_000

export interface ApiService extends Service {
  readonly port: number
}

export interface ApiOptions extends Pick<AppOptions, 'routes'> {
  /** Lets several processes listen on the same port. */
  readonly reusePort?: boolean
  /** The registry to serve; by default that of the region. */
  readonly registry?: Registry
}

export async function startApi(region: Region, options: ApiOptions = {}): Promise<ApiService> {
  const { config } = region
  await using opened = new AsyncDisposableStack()
  const edge = opened.use(await openEdge(region, options))
  const { tail } = edge
  const connections = createConnections(region)
  const { routes } = options
  const app = buildApp({ edge, begin: connections.begin, ...(routes && { routes }) })
  await app.ready()
  const serve: RequestListener = (request, response) => {
    toOriginForm(request)
    app.routing(request, response)
  }
  const make = (): Server => {
    const server = createServer(
      {
        maxHeaderSize: HEADER_BYTES_MAX,
        headersTimeout: HEADERS_TIMEOUT_MS,
        keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
        // Uploads have no total time limit. The minimum rate bounds them.
        requestTimeout: 0,
        // Node's own reply has no envelope and no log line. message-syntax.ts checks the Host instead.
        requireHostHeader: false,
      },
      serve,
    )
    // Without this listener, Node tells every client that asks to send its body before the request is checked.
    server.on('checkContinue', serve)
    server.on('checkExpectation', serve)
    connections.follow(server)
    return server
  }
  const { servers, port } = await listenAll(
    { ...config.listen, ...(options.reusePort === true && { reusePort: true }) },
    make,
  )
  const pulls = writePulls(edge)
  const stack = opened.move()
  return {
    name: 'api',
    port,
    async [Symbol.asyncDispose]() {
      if (edge.draining) return
      edge.draining = true
      const drainMs = config.drainSeconds * 1_000
      const startMs = performance.now()
      connections.closeWhenAnswered()
      // Notifies the streams to end at once. Its own running query is waited for as long as requests are.
      const ended = tail[Symbol.asyncDispose]()
      await Promise.all(servers.map((server) => connections.drain(server, drainMs)))
      await within(ended, drainMs - (performance.now() - startMs))
      await app.close()
      if (pulls !== undefined) await within(pulls[Symbol.asyncDispose](), LAST_WRITE_MS)
      await stack.disposeAsync()
    },
  }
}

/** Waits for a promise that never rejects, for at most `ms`. A stalled database must not keep the process alive. */
async function within(promise: PromiseLike<void>, ms: number): Promise<void> {
  const { promise: over, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, Math.max(0, ms))
  await Promise.race([promise, over])
  clearTimeout(timer)
}

/** Writes counted pulls to the outbox, periodically and once more at the end. */
function writePulls({ region, pulls }: Edge): AsyncDisposable | undefined {
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
