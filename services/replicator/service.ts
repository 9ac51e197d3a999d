// The replicator: follows the log of every other region and applies it here.
//
// One replicator of the region follows a peer at a time (a lease); several may run, and the next takes over within seconds.
// A peer that is away holds up nobody else: its follower keeps asking, and the log of the peer waits for it. What an event
// does is decided by shared/replication; that each is applied once and in order, by the cursor in its transaction.

import { type Held, withLease } from '#shared/db/lease.ts'
import { pause } from '#shared/pause.ts'
import { peerAddresses } from '#shared/peers/peer-request.ts'
import type { Region } from '#shared/region.ts'
import type { Service } from '#shared/service.ts'
import { followPeer } from './follow-peer.ts'

/** How soon another replicator looks whether the lease is free. */
const TURN_MS = 2_000

export async function startReplicator(region: Region): Promise<Service> {
  const stopping = new AbortController()
  const { signal } = stopping
  const followers = peerAddresses(region.config).map(async (peer) => {
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
