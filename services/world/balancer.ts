// The world's balancer: TCP connections to the first region that is ready, in the order of the regions. That is what a
// global balancer does for a client: it sends it to the nearest region, and to the next when that one is lost. It looks at
// no byte, so uploads of any size and length pass.
//
// Every second each region is asked whether it is ready. One that refuses or says no takes no new connections. One that
// keeps silent (frozen, or a cut network) also loses those it has, so that clients begin again elsewhere; those of a region
// that drains are left to finish. With no region ready connections are closed at once.

import { connect, createServer, type Socket } from 'node:net'
import { startLoop } from '#shared/loop.ts'
import { type ListenTarget, listenAll } from '#shared/observability/listen.ts'

const LOOK_EVERY_MS = 1_000
const LOOK_TIMEOUT_MS = 1_000
const CONNECT_TIMEOUT_MS = 1_000
/** Looks without any answer after which a region's connections are cut. */
const SILENT_LOOKS_MAX = 3
const CONNECTIONS_MAX = 4_096

export interface BalancedRegion {
  readonly name: string
  /** Of its registry, on loopback. */
  readonly port: number
}

export interface BalancerOptions {
  readonly listen: ListenTarget
  /** In the order of preference. */
  readonly regions: readonly BalancedRegion[]
  /** A region became ready, or is no longer. */
  onChange?(name: string, ready: boolean): void
  /** Test seam. */
  readonly lookEveryMs?: number
}

export interface Balancer extends AsyncDisposable {
  readonly port: number
  /** Looks at all regions now. */
  look(): Promise<void>
}

interface State {
  readonly region: BalancedRegion
  readonly sockets: Set<Socket>
  ready: boolean
  silentLooks: number
}

export async function startBalancer(options: BalancerOptions): Promise<Balancer> {
  const states: State[] = options.regions.map((region) => ({
    region,
    sockets: new Set(),
    ready: false,
    silentLooks: 0,
  }))

  async function lookAt(state: State): Promise<void> {
    const outcome = await readiness(state.region.port)
    const { ready } = state
    state.ready = outcome === 'ready'
    state.silentLooks = outcome === 'silent' ? state.silentLooks + 1 : 0
    if (state.silentLooks >= SILENT_LOOKS_MAX) for (const socket of state.sockets) socket.destroy()
    if (ready !== state.ready) options.onChange?.(state.region.name, state.ready)
  }

  const look = async () => void (await Promise.all(states.map(lookAt)))

  async function pass(client: Socket): Promise<void> {
    client.on('error', () => client.destroy())
    for (const state of states.filter(({ ready }) => ready)) {
      const region = await connected(state.region.port)
      if (client.destroyed) region?.destroy()
      if (client.destroyed) return
      if (region === undefined) continue
      join(client, region, state)
      return
    }
    client.destroy()
  }

  const clients = new Set<Socket>()
  const make = () => {
    const server = createServer({ allowHalfOpen: true, noDelay: true, keepAlive: true }, (client) => {
      clients.add(client)
      client.once('close', () => clients.delete(client))
      void pass(client)
    })
    server.maxConnections = CONNECTIONS_MAX
    return server
  }
  const { servers, port } = await listenAll(options.listen, make)
  await look()
  const looking = startLoop({
    everyMs: options.lookEveryMs ?? LOOK_EVERY_MS,
    run: look,
    // It never rejects: every outcome is a state.
    onError: () => undefined,
  })
  return {
    port,
    look,
    async [Symbol.asyncDispose]() {
      await looking[Symbol.asyncDispose]()
      const closed = servers.map((server) => new Promise((done) => server.close(done)))
      for (const client of clients) client.destroy()
      await Promise.all(closed)
    },
  }
}

/** Bytes both ways; the end of one is the end of the other. */
function join(client: Socket, region: Socket, { sockets }: State): void {
  sockets.add(region)
  region.on('error', () => region.destroy())
  region.once('close', () => {
    sockets.delete(region)
    client.destroy()
  })
  client.once('close', () => region.destroy())
  client.pipe(region)
  region.pipe(client)
}

/** undefined: nobody took the connection in time. */
function connected(port: number): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true })
    const late = setTimeout(() => socket.destroy(), CONNECT_TIMEOUT_MS)
    socket.once('connect', () => {
      clearTimeout(late)
      socket.removeAllListeners()
      resolve(socket)
    })
    socket.once('error', () => socket.destroy())
    socket.once('close', () => {
      clearTimeout(late)
      resolve(undefined)
    })
  })
}

async function readiness(port: number): Promise<'ready' | 'not ready' | 'silent'> {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/readyz`, {
      signal: AbortSignal.timeout(LOOK_TIMEOUT_MS),
      redirect: 'error',
    })
    await answer.body?.cancel()
    return answer.ok ? 'ready' : 'not ready'
  } catch (thrown) {
    return (thrown as Error).name === 'TimeoutError' ? 'silent' : 'not ready'
  }
}
