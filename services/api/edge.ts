// What only the HTTP edge needs, made when the API starts and disposed before the region: who callers are, how fast they
// must be, where large pulls are sent, what is counted, and what stays open. Every exchange carries it.

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
import type { PeerNotes } from './peer/log.ts'
import { createStreams, type Streams } from './streams.ts'

export interface Edge {
  readonly region: Region
  readonly registry: Registry
  /** undefined: nobody is asked who they are. */
  readonly auth: Auth | undefined
  /** Who other regions are; undefined: there are none. */
  readonly peers: PeerVerifier | undefined
  /** Content of other regions; undefined: this region is alone. */
  readonly content: PeerContent | undefined
  readonly rateGuard: RateGuard
  /** Who else sends a pull of so many bytes to a client at this address; undefined: nobody does. */
  readonly redirects: (bytes: number, address: string) => 'link' | 'proxy' | undefined
  /** undefined: pulls are no events here. */
  readonly pulls: PullCounter | undefined
  /** Set when the process drains: readiness says so, and new streams are refused. */
  draining: boolean
  readonly tail: EventTail
  /** Places for answers that stay open. */
  readonly streams: Streams
  readonly peerNotes: PeerNotes
}

export interface EdgeOptions {
  /** What is served; opened, and disposed with the edge, when it is not given. */
  readonly registry?: Registry
}

/** @throws OperatorError when the accounts or the blob store cannot be used */
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
    // Ended by the service, which has to tell the streams before it waits for them.
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
