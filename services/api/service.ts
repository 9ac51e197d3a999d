// The API service: listens, answers, drains. It holds no state of its own: any number of them may serve one region.
//
// Draining: readiness turns to 503 at once, no new connections are taken, idle ones are closed, event streams end, requests
// under way have PORTOLAN_DRAIN_SECONDS to finish, and then their connections are cut. Answers say `Connection: close`.

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

/** Tokens and cookies of proxies can be large; Node's default of 16 KiB refuses some. */
const HEADER_BYTES_MAX = 32 * 1024
const HEADERS_TIMEOUT_MS = 30_000
/** For the pulls that were counted since they were last written. */
const LAST_WRITE_MS = 5_000
/** Longer than balancers keep theirs, so that they close first and no request meets a closing socket. */
const KEEP_ALIVE_TIMEOUT_MS = 75_000

export interface ApiService extends Service {
  readonly port: number
}

export interface ApiOptions extends Pick<AppOptions, 'routes'> {
  /** Several processes listen on the one port. */
  readonly reusePort?: boolean
  /** What is served; the region's own when it is not given. */
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
        // Uploads take as long as they take; the minimum rate guards them.
        requestTimeout: 0,
        // Node's answer has no envelope and no log line; message-syntax.ts looks at it.
        requireHostHeader: false,
      },
      serve,
    )
    // Without this Node tells every client that asks to send its body before we looked at the request.
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
      // It tells the streams to end at once; a query of its own under way is waited for as long as requests are.
      const ended = tail[Symbol.asyncDispose]()
      await Promise.all(servers.map((server) => connections.drain(server, drainMs)))
      await within(ended, drainMs - (performance.now() - startMs))
      await app.close()
      if (pulls !== undefined) await within(pulls[Symbol.asyncDispose](), LAST_WRITE_MS)
      await stack.disposeAsync()
    },
  }
}

/** Waits for a promise that never rejects, but not longer: a database that stands still must not hold the process. */
async function within(promise: PromiseLike<void>, ms: number): Promise<void> {
  const { promise: over, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, Math.max(0, ms))
  await Promise.race([promise, over])
  clearTimeout(timer)
}

/** Counted pulls to the outbox, every so often and once more at the end. */
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
