// The replicator: follows the log of every other region and applies it here.
//
// A lease lets one replicator of the region follow a given peer. Run several: another takes over within seconds. An
// unreachable peer delays no other peer: its follower retries, and the peer keeps its log for it. shared/replication decides
// what an event does. The cursor, which moves in the same transaction, applies each event once and in order.

import { type Held, withLease } from '#shared/db/lease.ts'
import { pause } from '#shared/pause.ts'
import { peerAddresses } from '#shared/peers/peer-request.ts'
import type { Region } from '#shared/region.ts'
import type { Service } from '#shared/service.ts'

/** Time between two attempts to get the lease. */
const TURN_MS = 2_000

export async function startReplicator(region: Region): Promise<Service> {
  const stopping = new AbortController()
  const { signal } = stopping
  const followers = peerAddresses(region.config).map(async (peer) => {
    // Loaded only if there is a peer.
    const { followPeer } = await import('./follow-peer.ts')
    while (!signal.aborted) {
      try {
        await withLease(region.databaseUrl, `follow ${peer.to}`, async (lost: AbortSignal, held: Held) => {
          await using _following = await followPeer(region, { peer, held })
          await over(AbortSignal.any([signal, lost]))
        })
      } catch (thrown) {
        region.logFailure(thrown, `following the region ${peer.to} failed; it will be tried again`)
      }
      await pause(TURN_MS, { signal })
    }
  })
  return {
    name: 'replicator',
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await Promise.all(followers)
    },
  }
}

function over(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
