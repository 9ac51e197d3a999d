// Some regions, a network that loses, repeats and partitions, and clocks that are hours apart. One seed gives one history:
// random writes in random regions, deliveries in between, and at the end everything delivered.
//
// An omniscient observer writes down each write with what its region had merged at that moment. What regions conclude from
// their registers must be what the observer knows: the same visible content everywhere, and exactly the real conflicts.

import { killedUnseen, lostVersions } from '#shared/convergence/conflicts.ts'
import { deriveTombstone, identityOf, type TagVersion } from '#shared/convergence/registers.ts'
import { compareVersions } from '#shared/convergence/version.ts'
import { isTagVisible } from '#shared/convergence/visibility.ts'
import { LAYERS, MANIFESTS, parentsOf, TAGS } from './content.ts'
import { createRandom, type Random } from './random.ts'
import {
  createRegion,
  deleteLink,
  deleteManifest,
  deleteRepository,
  deleteTag,
  effective,
  type Fact,
  merge,
  number,
  push,
  type SimulatedRegion,
} from './region.ts'

const HOUR_MS = 3_600_000
const START_MS = 1_700_000_000_000

export interface Outcome {
  readonly seed: number
  readonly writes: number
  readonly conflicts: number
  /** Empty: all regions agree with each other and with the observer. */
  readonly problems: readonly string[]
}

/** What the observer notes of a delete: the writes of its target that its region had merged. */
interface ObservedDeath {
  readonly region: string
  readonly fact: Fact & { death: unknown }
  readonly seenTags: ReadonlySet<string>
  readonly seenManifests: ReadonlySet<string>
}

interface World {
  readonly random: Random
  readonly regions: readonly SimulatedRegion[]
  /** Links that are cut, as "from>to". */
  readonly cut: Set<string>
  nowMs: number
  readonly deaths: ObservedDeath[]
  readonly problems: string[]
  writes: number
  readonly broken: BrokenRule | undefined
}

/** A rule left out on purpose: the simulation must notice. */
export type BrokenRule =
  /** Derived tombstones get a version of their own instead of the one they tombstone. */
  | 'tombstones-rise'
  /** A death does not say what was delivered early. */
  | 'deaths-forget-early'
  /** A local write takes the clock, whatever registers it meets. */
  | 'writes-trust-the-clock'
  /** A hole in a log is skipped. */
  | 'holes-are-skipped'

export function simulate(seed: number, broken?: BrokenRule): Outcome {
  const random = createRandom(seed)
  const names = ['ap', 'eu', 'sa', 'us'].slice(0, 2 + random.int(3))
  const world: World = {
    random,
    regions: names.map((name) => createRegion(name, broken)),
    cut: new Set(),
    nowMs: START_MS,
    deaths: [],
    problems: [],
    writes: 0,
    broken,
  }
  const steps = 20 + random.int(60)
  for (let step = 0; step < steps; step++) {
    world.nowMs += random.int(2_000)
    act(world)
  }
  settle(world)
  const conflicts = check(world)
  return { seed, writes: world.writes, conflicts, problems: world.problems }
}

function act(world: World): void {
  const { random, regions } = world
  const region = random.pick(regions)
  const { nowMs } = world
  switch (random.int(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4: {
      const digest = random.pick(MANIFESTS)
      const tags = random.some(TAGS, 0.5)
      write(
        world,
        () => push(region, { digest, tags, nowMs }),
        () => acknowledged(world, region, { digest, tags }),
      )
      break
    }
    case 5:
      write(world, () => deleteTag(region, { name: random.pick(TAGS), nowMs }))
      break
    case 6:
      writeDeath(world, region, () => deleteManifest(region, { digest: random.pick(MANIFESTS), nowMs }))
      break
    case 7:
      if (random.chance(0.3)) writeDeath(world, region, () => deleteRepository(region, { nowMs }))
      else writeDeath(world, region, () => deleteLink(region, { digest: random.pick(LAYERS), nowMs }))
      break
    case 8:
      region.skewMs = (random.int(5) - 2) * HOUR_MS + random.int(1_000)
      break
    case 9:
      toggle(world.cut, `${random.pick(regions).name}>${region.name}`)
      break
    case 10:
      sweep(region, world.broken)
      break
    case 11:
      readThrough(world, { from: random.pick(regions), to: region })
      break
    case 12:
    case 13:
      number(region, 1 + random.int(4))
      break
    default:
      deliver(world, { from: random.pick(regions), to: region })
  }
}

function write(world: World, work: () => boolean, then: () => void = () => {}): void {
  if (!work()) return
  world.writes++
  then()
}

/** A push that was acknowledged shows at once in its region, whatever the clocks say. */
function acknowledged(
  world: World,
  region: SimulatedRegion,
  { digest, tags }: { digest: string; tags: readonly string[] },
): void {
  for (const name of tags) {
    const current = region.repository.tags.get(name)?.current
    if (current?.digest !== digest || !isTagVisible(region.repository, name, parentsOf))
      world.problems.push(`${region.name}: ${name} -> ${digest} was acknowledged and does not show`)
  }
}

function writeDeath(world: World, region: SimulatedRegion, work: () => boolean): void {
  const seenTags = new Set<string>()
  for (const [name, { history }] of region.repository.tags)
    for (const version of history.values()) seenTags.add(`${name} ${identityOf(version)}`)
  const seenManifests = new Set<string>()
  for (const [digest, { alive }] of region.repository.manifests)
    seenManifests.add(`${digest} ${alive.version.h} ${alive.version.origin}`)
  write(world, work, () => {
    const fact = region.outbox.at(-1)
    if (fact === undefined || !('death' in fact)) throw new Error('a delete wrote no death')
    world.deaths.push({ region: region.name, fact, seenTags, seenManifests })
  })
}

/** The janitor writes tombstones into tags that a death has killed. */
function sweep({ repository }: SimulatedRegion, broken: BrokenRule | undefined): void {
  for (const register of repository.tags.values()) {
    const { version, digest } = register.current
    const death = repository.manifests.get(digest)?.dead.version
    const killed =
      compareVersions(version, repository.dead.version) <= 0 ||
      (death !== undefined && compareVersions(version, death) <= 0)
    if (!killed || !register.current.alive) continue
    deriveTombstone(register)
    if (broken === 'tombstones-rise') {
      const { h, origin } = register.current.version
      register.current = { ...register.current, version: { h: h + 2n ** 20n, origin } }
    }
  }
}

function toggle(cut: Set<string>, link: string): void {
  if (!cut.delete(link)) cut.add(link)
}

interface Link {
  readonly from: SimulatedRegion
  readonly to: SimulatedRegion
}

/** A batch from the origin's log: perhaps repeated, perhaps with a hole before it, perhaps lost on the way. */
function deliver(world: World, { from, to }: Link): void {
  const { random } = world
  if (from === to || world.cut.has(`${from.name}>${to.name}`) || random.chance(0.1)) return
  const next = nextIndex(to, from)
  const start = Math.max(0, next - random.int(3) + random.int(3))
  apply(to, from, from.log.slice(start, start + 1 + random.int(6)))
}

/** Rule R8: what was applied is dropped, what follows is applied, what is missing is fetched from the origin's log. */
function apply(to: SimulatedRegion, from: SimulatedRegion, batch: SimulatedRegion['log']): void {
  for (const { ref, fact } of batch) {
    const index = from.log.findIndex((logged) => logged.ref.epoch === ref.epoch && logged.ref.seq === ref.seq)
    const missing = from.log.slice(nextIndex(to, from), index)
    if (to.broken !== 'holes-are-skipped') for (const before of missing) applyOne(to, from, before)
    if (index >= nextIndex(to, from)) applyOne(to, from, { ref, fact })
  }
}

function applyOne(
  to: SimulatedRegion,
  from: SimulatedRegion,
  { ref, fact }: SimulatedRegion['log'][number],
): void {
  merge(to, fact, ref)
  to.cursors[from.name] = ref
}

/** Where in the origin's log the region has to go on. */
function nextIndex(to: SimulatedRegion, from: SimulatedRegion): number {
  const at = to.cursors[from.name]
  if (at === undefined) return 0
  return from.log.findIndex(({ ref }) => ref.epoch === at.epoch && ref.seq === at.seq) + 1
}

/** Early delivery: the registers behind one tag, as the peer has them, merged before their events arrive. */
function readThrough(world: World, { from, to }: Link): void {
  if (from === to || world.cut.has(`${from.name}>${to.name}`)) return
  const name = world.random.pick(TAGS)
  const register = from.repository.tags.get(name)
  if (register === undefined) return
  const { digest } = register.current
  const manifest = from.repository.manifests.get(digest)
  merge(to, { kind: 'repository.deleted', death: from.repository.dead }, null)
  if (manifest !== undefined) {
    merge(to, { kind: 'manifest.deleted', digest, death: manifest.dead }, null)
    merge(to, { kind: 'manifest.put', digest, alive: manifest.alive }, manifest.alive.event)
  }
  for (const tag of register.history.values()) merge(to, { kind: 'tag', name, tag }, tag.event)
}

/** Everything is numbered and delivered everywhere. */
function settle(world: World): void {
  for (const region of world.regions) number(region, Number.MAX_SAFE_INTEGER)
  for (const from of world.regions) for (const to of world.regions) if (from !== to) apply(to, from, from.log)
}

/** Compares the regions with each other and with the observer. The number of conflicts. */
function check(world: World): number {
  const { regions, problems } = world
  const [first] = regions
  if (first === undefined) return 0
  for (const region of regions) {
    const [a, b] = [JSON.stringify(effective(first)), JSON.stringify(effective(region))]
    if (a !== b) problems.push(`${first.name} and ${region.name} differ:\n  ${a}\n  ${b}`)
  }
  return checkLostRaces(world) + checkDeaths(world)
}

function checkLostRaces({ regions, problems }: World): number {
  let conflicts = 0
  for (const name of TAGS) {
    const written = new Map<string, TagVersion>()
    for (const region of regions)
      for (const { fact } of region.log)
        if (fact.kind === 'tag' && fact.name === name)
          written.set(identityOf({ ...fact.tag, event: null }), { ...fact.tag, event: null })
    const real = realLosers([...written.values()])
    conflicts += real.length
    for (const region of regions) {
      const register = region.repository.tags.get(name)
      const found = register === undefined ? [] : lostVersions(register).map(identityOf).toSorted()
      if (JSON.stringify(found) !== JSON.stringify(real))
        problems.push(`${region.name}: lost races of ${name} are ${found}, really ${real}`)
    }
  }
  return conflicts
}

/** From the writes themselves: the ends of branches that are not the winner's and say what no later write says. */
function realLosers(written: readonly TagVersion[]): string[] {
  const sorted = written.toSorted((a, b) => compareVersions(a.version, b.version))
  const winner = sorted.at(-1)
  return sorted
    .filter((version, index) => {
      if (version === winner) return false
      if (written.some(({ prev }) => compareVersions(prev, version.version) === 0)) return false
      return !sorted
        .slice(index + 1)
        .some(({ digest, alive }) => digest === version.digest && alive === version.alive)
    })
    .map(identityOf)
    .toSorted()
}

function checkDeaths({ regions, deaths, problems }: World): number {
  let conflicts = 0
  const [first] = regions
  if (first === undefined) return 0
  for (const { fact, seenTags, seenManifests, region: author } of deaths) {
    if (fact.kind !== 'manifest.deleted' && fact.kind !== 'repository.deleted') continue
    for (const name of TAGS) {
      for (const version of first.repository.tags.get(name)?.history.values() ?? []) {
        if (fact.kind === 'manifest.deleted' && version.digest !== fact.digest) continue
        const killed = compareVersions(version.version, fact.death.version) <= 0
        const real = killed && !seenTags.has(`${name} ${identityOf(version)}`)
        if (real) conflicts++
        for (const region of regions) {
          const known = region.repository.tags.get(name)?.history.get(identityOf(version))
          const found = known === undefined ? 'absent' : killedUnseen(fact.death, { subject: name, ...known })
          if (found !== real)
            problems.push(
              `${region.name}: death by ${author} and ${name} ${identityOf(version)}: ${found}, really ${real}`,
            )
        }
      }
    }
    for (const digest of MANIFESTS) {
      const alive = first.repository.manifests.get(digest)?.alive
      if (alive === undefined || alive.version.h === 0n) continue
      if (fact.kind === 'manifest.deleted' && digest !== fact.digest) continue
      const killed = compareVersions(alive.version, fact.death.version) <= 0
      const real = killed && !seenManifests.has(`${digest} ${alive.version.h} ${alive.version.origin}`)
      if (real) conflicts++
      for (const region of regions) {
        const known = region.repository.manifests.get(digest)?.alive
        const found = known === undefined ? 'absent' : killedUnseen(fact.death, { subject: digest, ...known })
        if (found !== real)
          problems.push(`${region.name}: death by ${author} and ${digest}: ${found}, really ${real}`)
      }
    }
  }
  return conflicts
}
