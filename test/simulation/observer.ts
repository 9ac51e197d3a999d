// The omniscient observer knows every write and what its region had merged at that moment. It compares what regions
// conclude from their registers with what really happened.

import { killedUnseen, lostVersions } from '#shared/convergence/conflicts.ts'
import {
  type Death,
  type Events,
  identityOf,
  type Repository,
  type TagVersion,
  tagValue,
  type Written,
} from '#shared/convergence/registers.ts'
import { compareVersions, type Version } from '#shared/convergence/version.ts'
import { isManifestVisible, isTagVisible, type ParentsOf } from '#shared/convergence/visibility.ts'
import { parentsOf, TAGS } from './content.ts'
import {
  createRegion,
  effective,
  type Fact,
  factIdentity,
  manifestIdentity,
  merge,
  type SimulatedRegion,
  tagIdentity,
} from './region.ts'

/** What the observer records of a delete: the writes that its region had merged. */
export interface ObservedDeath {
  readonly fact: Extract<Fact, { death: Death }>
  readonly seen: ReadonlySet<string>
}

export interface Observed {
  readonly regions: readonly SimulatedRegion[]
  readonly deaths: readonly ObservedDeath[]
  readonly problems: string[]
  readonly misjudged: string[]
}

/** Compares the regions with each other and with the observer. Returns the number of conflicts. */
export function check(world: Observed): number {
  const { regions, problems } = world
  const [first] = regions
  if (first === undefined) return 0
  for (const region of regions) {
    const [a, b] = [JSON.stringify(effective(first)), JSON.stringify(effective(region))]
    if (a !== b) problems.push(`${first.name} and ${region.name} differ:\n  ${a}\n  ${b}`)
  }
  const facts = survivingFacts(regions)
  checkContent(world, facts)
  return checkLostRaces(world) + checkDeaths(world, twinsIn(regions))
}

/** Up to this bound, regions may hold different writes. Such a write causes no conflict. */
function prunedBySome(regions: readonly SimulatedRegion[]): bigint {
  return regions.reduce((most, { prunedH }) => (prunedH > most ? prunedH : most), 0n)
}

/**
 * Writes that some database still knows or has forgotten. A write that a restore lost before any other region knew it
 * does not count.
 */
function survivingFacts(regions: readonly SimulatedRegion[]): Fact[] {
  return regions
    .flatMap(({ born }) => born)
    .filter((fact) => regions.some(({ merged }) => merged.has(factIdentity(fact))))
}

/** A restored region may assign one version to one value twice. It is impossible to tell which of the two was seen. */
function twinsIn(regions: readonly SimulatedRegion[]): Set<string> {
  const once = new Set<string>()
  const twice = new Set<string>()
  for (const { born } of regions)
    for (const fact of born) {
      const identity = factIdentity(fact)
      if (once.has(identity)) twice.add(identity)
      once.add(identity)
    }
  return twice
}

/**
 * What is visible is what would be visible if nothing had ever been forgotten: nothing that was forgotten came back,
 * and nothing that was acknowledged is gone. The rules allow two exceptions: content in a quarantine, and content that
 * its death never met, because the regions that knew the death had forgotten it before they saw the write.
 */
function checkContent({ regions, problems }: Observed, facts: readonly Fact[]): void {
  const ideal = createRegion('ideal')
  for (const fact of facts) merge(ideal, fact, [])
  const quarantined = new Set(regions.flatMap((region) => region.quarantined))
  const should = showing(ideal.repository)
  const prunedH = prunedBySome(regions)
  const isSpared = (one: string) =>
    BigInt(one.split(' ')[1] ?? 0) <= prunedH && !regions.some(({ gone }) => gone.has(one))
  for (const region of regions) {
    const shows = showing(region.repository)
    // A child may be visible only because of its index.
    for (const one of showing(region.repository, () => []))
      if (!should.has(one) && !isSpared(one))
        problems.push(`${region.name}: ${one} shows, and was deleted or overwritten`)
    for (const one of should)
      if (!shows.has(one) && !quarantined.has(one)) problems.push(`${region.name}: ${one} is lost`)
  }
}

export function showing(repository: Repository, parents: ParentsOf = parentsOf): Set<string> {
  const shows = new Set<string>()
  for (const [name, { current }] of repository.tags)
    if (isTagVisible(repository, name, parents)) shows.add(tagIdentity(name, current))
  for (const [digest, { alive }] of repository.manifests)
    if (isManifestVisible(repository, digest, parents)) shows.add(manifestIdentity(digest, alive))
  return shows
}

function checkLostRaces({ regions, problems }: Observed): number {
  let conflicts = 0
  const prunedH = prunedBySome(regions)
  for (const name of TAGS) {
    const written = new Map<string, TagVersion>()
    // A write that a restore lost before any other region knew it no longer counts.
    for (const region of regions)
      for (const version of region.repository.tags.get(name)?.history.values() ?? [])
        written.set(identityOf(version), version)
    const real = realLosers([...written.values()], prunedH)
    conflicts += real.length
    for (const region of regions) {
      const register = region.repository.tags.get(name)
      const found = register === undefined ? [] : lostVersions(register, prunedH).map(identityOf).toSorted()
      if (JSON.stringify(found) !== JSON.stringify(real))
        problems.push(`${region.name}: lost races of ${name} are ${found}, really ${real}`)
    }
  }
  return conflicts
}

/** Computed from the writes themselves: the ends of branches that differ from the winner and from every later write. */
function realLosers(written: readonly TagVersion[], prunedH: bigint): string[] {
  const sorted = written.toSorted((a, b) => compareVersions(a.version, b.version))
  const winner = sorted.at(-1)
  return sorted
    .filter((version, index) => {
      if (version === winner || version.version.h <= prunedH) return false
      if (written.some(({ prev }) => compareVersions(prev, version.version) === 0)) return false
      return !sorted
        .slice(index + 1)
        .some(({ digest, alive }) => digest === version.digest && alive === version.alive)
    })
    .map(identityOf)
    .toSorted()
}

function checkDeaths(world: Observed, twins: ReadonlySet<string>): number {
  let conflicts = 0
  const prunedH = prunedBySome(world.regions)
  for (const region of world.regions) {
    for (const { digest, death, fact: logged } of deathsKnownTo(world, region)) {
      const observed = world.deaths.filter(({ fact }) =>
        logged === undefined
          ? compareVersions(fact.death.version, death.version) === 0 &&
            (fact.kind === 'manifest.deleted' ? fact.digest : undefined) === digest
          : fact === logged,
      )
      for (const write of writesIn(region, digest)) {
        if (write.version.h <= prunedH || twins.has(write.identity)) continue
        const killed = compareVersions(write.version, death.version) <= 0
        const real = killed && observed.some(({ seen }) => !seen.has(write.identity))
        // A restored region may have assigned one version to two deaths, and the first of them may be unknown by now.
        const isTwin = killed && real !== observed.every(({ seen }) => !seen.has(write.identity))
        if (real) conflicts++
        const found = killedUnseen(death, write)
        // Delivered early and then lost by its origin before it had a number, so the result cannot be known.
        if (isTwin || (found === 'unknown' && write.events.length === 0)) continue
        if (found !== real)
          world.misjudged.push(
            `${region.name}: death of ${digest ?? 'all'} by ${death.version.origin} and ${write.identity}: ${found}, really ${real}`,
          )
      }
    }
  }
  return conflicts
}

interface KnownDeath {
  /** undefined: the death of the repository. */
  readonly digest?: string
  readonly death: Death
  /** Set if the death comes from a log, where it is separate and not merged with another of the same version. */
  readonly fact?: Fact
}

/** Deaths in the registers of the region and in every log, which the region has seen by now. */
function deathsKnownTo(world: Observed, { repository }: SimulatedRegion): KnownDeath[] {
  const known: KnownDeath[] = [{ death: repository.dead }]
  for (const [digest, { dead }] of repository.manifests) known.push({ digest, death: dead })
  for (const { log } of world.regions)
    for (const { ref, fact } of log) {
      if (fact.kind === 'repository.deleted') known.push({ death: { ...fact.death, events: [ref] }, fact })
      if (fact.kind === 'manifest.deleted')
        known.push({ digest: fact.digest, death: { ...fact.death, events: [ref] }, fact })
    }
  return known.filter(({ death }) => death.version.h > 0n)
}

interface KnownWrite {
  readonly subject: string
  readonly version: Version
  readonly value: string
  readonly events: Events
  readonly written: Written
  readonly identity: string
}

/**
 * The writes that a death of the digest may kill (without a digest, all writes), as the region's registers have them.
 */
export function writesIn({ repository }: SimulatedRegion, digest: string | undefined): KnownWrite[] {
  const writes: KnownWrite[] = []
  for (const [name, { history }] of repository.tags)
    for (const version of history.values())
      if (digest === undefined || version.digest === digest)
        writes.push({
          ...version,
          subject: name,
          value: tagValue(version),
          identity: tagIdentity(name, version),
        })
  for (const [subject, { alive }] of repository.manifests)
    if (alive.version.h > 0n && (digest === undefined || subject === digest))
      writes.push({ ...alive, subject, value: '', identity: manifestIdentity(subject, alive) })
  return writes
}
