// State that only the HTTP edge needs. Created when the API starts and disposed before the region: authentication, the
// minimum rate, redirects of large pulls, pull counters, and open streams. Every exchange has a reference to it.

import { createAddressMatcher } from '#shared/auth/challenge.ts'
import { createPeerVerifier, type PeerVerifier } from '#shared/auth/peer-signature.ts'
import type { Auth } from '#shared/auth/token-service.ts'
import type { Config } from '#shared/config/load.ts'
import { createPeerContent, type PeerContent } from '#shared/peers/peer-content.ts'
import { peerAddresses } from '#shared/peers/peer-request.ts'
import type { Region } from '#shared/region.ts'
import { createPullCounter, type PullCounter } from '#shared/registry/pull-counter.ts'
import { openRegistry, type Registry } from '#shared/registry/registry.ts'
import { createEventTail, type EventTail } from './event-tail.ts'
import { createRateGuard, type RateGuard } from './minimum-rate.ts'
import { openAuth } from './open-auth.ts'
import { createStreams, type Streams } from './streams.ts'

export interface Edge {
  readonly region: Region
  readonly registry: Registry
  /** undefined: authentication is off. */
  readonly auth: Auth | undefined
  /** Verifies other regions; undefined: there are none. */
  readonly peers: PeerVerifier | undefined
  /** Content of other regions; undefined: there are no other regions. */
  readonly content: PeerContent | undefined
  readonly rateGuard: RateGuard
  /**
   * Selects who else sends a pull of this many bytes to a client at this address: the store through a link, or a proxy.
   * undefined: this process sends it.
   */
  readonly redirects: (bytes: number, address: string) => 'link' | 'proxy' | undefined
  /** undefined: pulls are not recorded as events. */
  readonly pulls: PullCounter | undefined
  /** Set when the process drains: readiness fails and new streams are refused. */
  draining: boolean
  readonly tail: EventTail
  /** Limits the number of replies that stay open. */
  readonly streams: Streams
  /** When the position of each peer was last recorded, by region: only those that have the key, so there are few. */
  readonly peerNotes: Map<string, { atMs: number; places: string }>
}

export interface EdgeOptions {
  /** The registry to serve. If absent, it is opened here and disposed with the edge. */
  readonly registry?: Registry
}

/** @throws OperatorError if the accounts or the blob store cannot be used */
export async function openEdge(region: Region, options: EdgeOptions = {}): Promise<Edge & AsyncDisposable> {
  const { config } = region
  const { streamsMax, streamsPerAddressMax, pullSeconds } = config.events
  await using opened = new AsyncDisposableStack()
  const auth = await openAuth(region)
  const registry = options.registry ?? opened.use(await openRegistry(region))
  const rateGuard = opened.use(
    createRateGuard({
      bytesPerSecondMin: config.bytes.ratePerSecondMin,
      windowMs: config.bytes.rateWindowSeconds * 1_000,
    }),
  )
  const stack = opened.move()
  return {
    region,
    registry,
    auth,
    peers:
      config.peerKeys === undefined
        ? undefined
        : createPeerVerifier({ region: config.region, keys: config.peerKeys }),
    content: contentOf(config),
    rateGuard,
    redirects: redirectRule(config),
    pulls: pullSeconds === 0 ? undefined : createPullCounter(),
    draining: false,
    // The service ends the tail, because it must notify the streams before it waits for them.
    tail: createEventTail(region),
    streams: createStreams({ max: streamsMax, perCallerMax: streamsPerAddressMax }),
    peerNotes: new Map(),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

function contentOf(config: Config): PeerContent | undefined {
  const addresses = peerAddresses(config)
  return addresses.length === 0 ? undefined : createPeerContent(addresses)
}

function redirectRule({ redirect }: Config): Edge['redirects'] {
  const excepted = createAddressMatcher(redirect.except)
  return (bytes, address) => (bytes >= redirect.bytesMin && !excepted(address) ? redirect.by : undefined)
}
