// Regions that are away for a long time: comparison, eviction, forgetting, and how two regions meet that are not
// continuous.
//
// Each pair counts its comparisons, on both sides, in the database. The numbers differ if one side was restored to a
// time before the last comparison, if one evicted the other, or if they never met. Then nothing passes between them, by
// log, by comparison or on a miss, until they have met. To meet, each takes back the deaths of what the other has
// forgotten. Then they exchange everything and continue from each other's heads. The first scan of a new region works
// the same way.

import { type DeathKey, forget, forgottenBy } from '#shared/convergence/forgetting.ts'
import type { Version } from '#shared/convergence/version.ts'
import { parentsOf } from './content.ts'
import { merge, mergeAll, number, type Pair, raised, type SimulatedRegion } from './region.ts'

export const LEASE_MS = 7 * 86_400_000

export function introduce(regions: readonly SimulatedRegion[], nowMs: number): void {
  for (const region of regions)
    for (const peer of regions)
      if (peer !== region) region.pairs.set(peer.name, { meeting: 0, comparedTick: 0, heardMs: nowMs })
}

export function isContinuous(a: SimulatedRegion, b: SimulatedRegion): boolean {
  const meeting = a.pairs.get(b.name)?.meeting
  return meeting !== undefined && meeting === b.pairs.get(a.name)?.meeting
}

export function hear(region: SimulatedRegion, peer: SimulatedRegion, nowMs: number): void {
  const pair = region.pairs.get(peer.name)
  if (pair !== undefined) region.pairs.set(peer.name, { ...pair, heardMs: nowMs })
}

/** Evicts peers that were silent longer than the lease. Forgetting no longer waits for them. */
export function evictSilent(region: SimulatedRegion, nowMs: number): void {
  for (const [name, { heardMs }] of region.pairs) if (nowMs - heardMs > LEASE_MS) region.pairs.delete(name)
}

/** Both regions learn everything from each other. If they are not continuous, they meet. */
export function compareRegions(a: SimulatedRegion, b: SimulatedRegion, nowMs: number): void {
  const hasMet = isContinuous(a, b) || a.broken === 'returners-are-merged'
  const began = { a: a.tick, b: b.tick }
  if (!hasMet) {
    number(a, Number.MAX_SAFE_INTEGER)
    number(b, Number.MAX_SAFE_INTEGER)
    const given = { a: forgottenBy(b, a.repository), b: forgottenBy(a, b.repository) }
    giveUp(a, given.a)
    giveUp(b, given.b)
  }
  mergeAll(a, b)
  mergeAll(b, a)
  if (!hasMet) {
    goOnFromHeads(a, b)
    goOnFromHeads(b, a)
  }
  const meeting = 1 + Math.max(meetingOf(a, b), meetingOf(b, a))
  a.pairs.set(b.name, { meeting, comparedTick: began.a, heardMs: nowMs })
  b.pairs.set(a.name, { meeting, comparedTick: began.b, heardMs: nowMs })
}

function meetingOf(region: SimulatedRegion, peer: SimulatedRegion): number {
  return region.pairs.get(peer.name)?.meeting ?? 0
}

function giveUp(region: SimulatedRegion, forgotten: ReturnType<typeof forgottenBy>): void {
  for (const one of forgotten) {
    if (one.kind === 'manifest') {
      merge(region, { kind: 'manifest.deleted', digest: one.digest, death: one.death }, [])
      quarantine(region, `${one.digest} ${one.death.version.h} ${one.death.version.origin}`)
    } else {
      merge(region, { kind: 'tag', name: one.name, tag: one.tag }, one.tag.events)
      const { version, digest } = one.tag
      quarantine(region, `${one.name} ${version.h} ${version.origin} ${digest} true`)
    }
  }
}

function quarantine(region: SimulatedRegion, identity: string): void {
  region.quarantined = [...region.quarantined, identity]
}

/** Follows the other's log from its end, because everything before was exchanged. */
function goOnFromHeads(region: SimulatedRegion, peer: SimulatedRegion): void {
  const known = region.cursors[peer.name] ?? []
  const heads = (peer.cursors[peer.name] ?? []).map((head) => {
    const at = known.find(({ epoch }) => epoch === head.epoch)
    return at !== undefined && at.seq > head.seq ? at : head
  })
  const lost = known.filter((at) => !heads.some(({ epoch }) => epoch === at.epoch))
  region.cursors[peer.name] = [...lost, ...heads]
  for (const written of peer.told[peer.name] ?? [])
    region.told[peer.name] = raised(region.told[peer.name], written)
  region.applied[peer.name] = region.told[peer.name] ?? []
  for (const identity of peer.merged) region.merged.add(identity)
}

/** The janitor forgets deaths that are old and that every live peer has. */
export function forgetAt(region: SimulatedRegion, nowMs: number): number {
  if (region.pairs.size === 0 || (isToldEarly(region) && region.broken !== 'forgets-what-is-still-to-come'))
    return 0
  const limit = BigInt(nowMs + region.skewMs - LEASE_MS) << 16n
  const forgotten: string[] = []
  const isForgettable = (key: DeathKey, { h, origin }: Version): boolean => {
    const at = `${key} ${h} ${origin}`
    const tick = region.deathTicks.get(at)
    if (tick === undefined || h >= limit) return false
    const isKnown = [...region.pairs.values()].every(({ comparedTick }: Pair) => comparedTick >= tick)
    if (!isKnown && region.broken !== 'forgets-what-peers-lack') return false
    forgotten.push(at)
    return true
  }
  const names = region.broken === 'forgets-kept-children' ? () => [] : parentsOf
  const prunedH = forget(region.repository, { parentsOf: names, isForgettable })
  if (prunedH > region.prunedH) region.prunedH = prunedH
  return forgotten.length
}

/** True if something was delivered early and has not arrived through the log that contains it. */
function isToldEarly(region: SimulatedRegion): boolean {
  return [region.name, ...region.pairs.keys()].some((origin) =>
    (region.told[origin] ?? []).some(
      ({ epoch, id }) =>
        epoch !== 0 &&
        !(region.applied[origin] ?? []).some((applied) => applied.epoch === epoch && applied.id >= id),
    ),
  )
}
