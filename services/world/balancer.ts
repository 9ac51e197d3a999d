// The world's balancer. It connects each TCP connection to the first region that is ready, in the order of the regions. A
// global balancer does the same for a client: it chooses the nearest region, and the next one if that is lost. It does not
// look at the bytes, so uploads of any size and duration pass.
//
// Once a second it asks each region whether it is ready. A region that refuses or says no gets no new connections; those
// that it has may finish. A region that does not answer at all (frozen, or a cut network) also loses its connections, so
// that clients retry elsewhere. If no region is ready, the balancer closes new connections at once.

import { connect, createServer, type Socket } from 'node:net'
import { startLoop } from '#shared/loop.ts'
import { type ListenTarget, listenAll } from '#shared/observability/listen.ts'

const LOOK_EVERY_MS = 1_000
const LOOK_TIMEOUT_MS = 1_000
const CONNECT_TIMEOUT_MS = 1_000
/** Unanswered checks in a row after which a region's connections are closed. */
const SILENT_LOOKS_MAX = 3
const CONNECTIONS_MAX = 4_096

export interface BalancedRegion {
  readonly name: string
  /** The registry's port on loopback. */
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
  /** Checks all regions now. */
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
    // A check never rejects: every outcome is a state.
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

/** Copies bytes both ways. If one side closes, so does the other. */
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

/** undefined: the region did not accept the connection in time. */
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
