// Follows the log of one region and applies its events while the lease is held.

import { followLog } from '#shared/bus/follow.ts'
import { createLogBus } from '#shared/bus/log-bus.ts'
import type { Held } from '#shared/db/lease.ts'
import { placeAtPeer } from '#shared/db/places-at-peers.ts'
import { type PeerAddress, PeerError } from '#shared/peers/peer-request.ts'
import { remoteLogPages } from '#shared/peers/remote-log-pages.ts'
import type { Region } from '#shared/region.ts'
import { createRegisterApplier } from '#shared/replication/apply.ts'
import { createSettingApplier } from '#shared/replication/apply-settings.ts'
import { applyParked, combined, receiveEvents, skipTrimmed } from '#shared/replication/receive-events.ts'

/** How long the peer may hold a request while it has no new event. New events therefore arrive at once. */
const WAIT_SECONDS = 20
const POLL_MS = 100
const QUIET_MS = 5_000
const RETRY_BUS_MS = 60_000
/** Time between two log lines about a peer that cannot be reached. */
const TELL_EVERY_MS = 60_000

export async function followPeer(
  region: Region,
  options: { peer: PeerAddress; held: Held },
): Promise<AsyncDisposable> {
  const { peer, held } = options
  const { db, log, name, config } = region
  const origin = peer.to
  const pages = remoteLogPages({ ...peer, waitSeconds: WAIT_SECONDS })
  let toldMs = Number.NEGATIVE_INFINITY
  const applier = combined([createRegisterApplier(Date.now), createSettingApplier(Date.now)])
  // Events of types that an older release did not know.
  while ((await applyParked(db, applier)) > 0) held.requireHeld()
  await using opened = new AsyncDisposableStack()
  const kafka = config.peers.find((one) => one.name === origin)?.kafka
  const bus =
    kafka === undefined
      ? undefined
      : opened.use(
          (await import('#shared/bus/open-kafka.ts')).openKafka(kafka, { name, log, keys: config.peerKeys }),
        )
  const following = followLog({
    group: `portolan-${name}`,
    bus,
    log: createLogBus({ pages, pollMs: POLL_MS }),
    pages,
    position: (shard) => placeAtPeer(region.reads, { origin, shard }),
    async handle({ shard, events }) {
      held.requireHeld()
      await receiveEvents(db, { origin, shard, events, applier })
    },
    async onGone(oldest) {
      log.error(
        { peer: origin, shard: oldest.shard },
        'the peer no longer has events that were not applied here: this region misses them until it is compared',
      )
      held.requireHeld()
      await skipTrimmed(db, { origin, ...oldest })
      return oldest
    },
    onProblem(error) {
      const nowMs = performance.now()
      if (nowMs - toldMs < TELL_EVERY_MS) return
      toldMs = nowMs
      if (!(error instanceof PeerError)) {
        region.logFailure(error, `events of the region ${origin} cannot be applied; it will be tried again`)
      } else
        log.warn({ peer: origin, reason: error.message }, 'a region is out of reach; its log is waited for')
    },
    onWay: (way, why) => log.info({ peer: origin, way, why }, 'events of the peer come another way'),
    quietMs: QUIET_MS,
    retryBusMs: RETRY_BUS_MS,
  })
  opened.use(following)
  return opened.move()
}
