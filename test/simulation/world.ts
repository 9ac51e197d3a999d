// Several regions, a network that loses, repeats and partitions, and clocks that are hours apart. One seed gives one
// history: random writes in random regions, deliveries in between, and delivery of everything at the end.
//
// An omniscient observer records each write and what its region had merged at that moment. What regions conclude from
// their registers must match what the observer knows: the same visible content everywhere, and exactly the real
// conflicts.

import { deriveTombstone } from '#shared/convergence/registers.ts'
import { compareVersions } from '#shared/convergence/version.ts'
import { isTagVisible } from '#shared/convergence/visibility.ts'
import { LAYERS, MANIFESTS, parentsOf, TAGS } from './content.ts'
import { checkGone, pass } from './days.ts'
import { apply, nextIndex } from './follow.ts'
import { compareRegions, hear, introduce, isContinuous } from './lifecycle.ts'
import { check } from './observer.ts'
import type { ClientWrite, Operation } from './operations.ts'
import { createRandom } from './random.ts'
import {
  createRegion,
  deriveLinks,
  merge,
  number,
  raiseEpoch,
  restoreBackup,
  type SimulatedRegion,
  takeBackup,
} from './region.ts'
import {
  type BrokenRule,
  bigintText,
  compare,
  isFollowed,
  type Link,
  note,
  type Options,
  START_MS,
  type World,
} from './state.ts'
import { deleteLink, deleteManifest, deleteRepository, deleteTag, hlcOf, push } from './writes.ts'

const HOUR_MS = 3_600_000

export interface Outcome {
  readonly seed: number
  readonly steps: number
  readonly writes: number
  /** What happened, one line per event. */
  readonly trace: readonly string[]
  readonly operations: readonly Operation[]
  readonly regions: readonly SimulatedRegion[]
  readonly conflicts: number
  readonly forgotten: number
  readonly quarantined: number
  /** Empty: all regions agree with each other and with the observer on what is visible and on lost races. */
  readonly problems: readonly string[]
  /** Deaths for which a region and the observer disagree about what they killed unseen. */
  readonly misjudged: readonly string[]
}

export function simulate(
  seed: number,
  { restores = false, lifecycle = false, broken, stepsMax = Infinity }: Options = {},
): Outcome {
  const random = createRandom(seed)
  const names = ['ap', 'eu', 'sa', 'us'].slice(0, 2 + random.int(3))
  const world: World = {
    random,
    regions: names.map((name) => createRegion(name, broken)),
    cut: new Set(),
    nowMs: START_MS,
    deaths: [],
    trace: [],
    operations: [],
    problems: [],
    misjudged: [],
    writes: 0,
    restores,
    lifecycle,
    forgotten: 0,
    restored: false,
    broken,
  }
  introduce(world.regions, START_MS)
  const steps = Math.min(stepsMax, 20 + random.int(60))
  for (let step = 0; step < steps; step++) {
    world.nowMs += random.int(2_000)
    act(world)
    checkGone(world)
  }
  settle(world)
  checkGone(world)
  const conflicts = check(world)
  return {
    seed,
    steps,
    trace: world.trace,
    operations: world.operations,
    regions: world.regions,
    writes: world.writes,
    conflicts,
    problems: world.problems,
    misjudged: world.misjudged,
    forgotten: world.forgotten,
    quarantined: world.regions.reduce((sum, { quarantined }) => sum + quarantined.length, 0),
  }
}

function act(world: World): void {
  const { random, regions } = world
  const region = random.pick(regions)
  const { nowMs } = world
  if (region.pairs.size === 0) {
    compare(world, { from: random.pick(regions), to: region })
    return
  }
  if (world.lifecycle && random.chance(0.3)) {
    pass(world, region)
    return
  }
  switch (random.int(18)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4: {
      const digest = random.pick(MANIFESTS)
      const tags = random.some(TAGS, 0.5)
      write(
        world,
        region,
        { kind: 'push', digest, tags },
        () => push(region, { digest, tags, nowMs }),
        () => acknowledged(world, region, { digest, tags }),
      )
      break
    }
    case 5:
      {
        const name = random.pick(TAGS)
        write(world, region, { kind: 'delete-tag', name }, () => deleteTag(region, { name, nowMs }))
      }
      break
    case 6:
      {
        const digest = random.pick(MANIFESTS)
        writeDeath(world, region, { kind: 'delete-manifest', digest }, () =>
          deleteManifest(region, { digest, nowMs }),
        )
      }
      break
    case 7:
      if (random.chance(0.3)) {
        writeDeath(world, region, { kind: 'delete-repository' }, () => deleteRepository(region, { nowMs }))
      } else {
        const digest = random.pick(LAYERS)
        writeDeath(world, region, { kind: 'delete-link', digest }, () =>
          deleteLink(region, { digest, nowMs }),
        )
      }
      break
    case 8:
      region.skewMs = (random.int(5) - 2) * HOUR_MS + random.int(1_000)
      break
    case 9:
      toggle(world.cut, `${random.pick(regions).name}>${region.name}`)
      break
    case 10:
      world.operations.push({ kind: 'sweep', region: region.name })
      sweep(region, world.broken)
      break
    case 11:
      readThrough(world, { from: random.pick(regions), to: region })
      break
    case 12:
      if (!world.restores) break
      if (random.chance(0.5)) {
        note(world, 'is backed up', region)
        takeBackup(region)
      } else if (restoreBackup(region)) {
        world.restored = true
        restart(world, region)
      }
      break
    case 13:
      compare(world, { from: random.pick(regions), to: region })
      break
    case 14:
    case 15:
      numberSome(world, region, 1 + random.int(4))
      break
    default:
      deliver(world, { from: random.pick(regions), to: region })
  }
}

function write(
  world: World,
  region: SimulatedRegion,
  what: ClientWrite,
  work: () => boolean,
  then: () => void = () => {},
): void {
  const clock = hlcOf(region, world.nowMs)
  const done = work()
  world.operations.push({ ...what, region: region.name, clock, done })
  if (!done) return
  world.writes++
  note(world, `writes ${JSON.stringify(region.born.at(-1), bigintText)}`, region)
  then()
}

/** An acknowledged push is visible in its region at once, whatever the clocks say. */
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

function writeDeath(world: World, region: SimulatedRegion, what: ClientWrite, work: () => boolean): void {
  const seen = new Set(region.merged)
  write(world, region, what, work, () => {
    const fact = region.outbox.at(-1)
    if (fact === undefined || !('death' in fact)) throw new Error('a delete wrote no death')
    world.deaths.push({ fact, seen })
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

/** A batch from the origin's log: perhaps repeated, perhaps with a gap before it, perhaps lost in transit. */
function deliver(world: World, { from, to }: Link): void {
  const { random } = world
  if (!isFollowed(world, { from, to }) || random.chance(0.1)) return
  hear(to, from, world.nowMs)
  note(world, 'delivers', from, to)
  const next = nextIndex(to, from)
  const start = Math.max(0, next - random.int(3) + random.int(3))
  applyFrom(world, { from, to }, from.log.slice(start, start + 1 + random.int(6)))
}

function applyFrom(world: World, { from, to }: Link, batch: SimulatedRegion['log']): void {
  const first = nextIndex(to, from)
  apply(to, from, batch)
  world.operations.push({ kind: 'apply', from: from.name, to: to.name, first, end: nextIndex(to, from) })
}

function numberSome(world: World, region: SimulatedRegion, count: number): void {
  world.operations.push({
    kind: 'number',
    region: region.name,
    count: Math.min(count, region.outbox.length),
  })
  number(region, count)
}

/**
 * A start of the database, restored or not, begins an epoch: the time of the region's clock. No epoch begins twice, so
 * no event number and no outbox id is ever assigned twice. It is not necessary to ask other regions what a restore
 * lost.
 */
function restart(world: World, region: SimulatedRegion): void {
  world.nowMs++
  note(world, 'is restored', region)
  if (region.broken !== 'a-start-goes-on-counting') raiseEpoch(region, world.nowMs + region.skewMs)
}

/** Early delivery: merges the registers behind one tag, as the peer has them, before their events arrive. */
function readThrough(world: World, { from, to }: Link): void {
  if (!isFollowed(world, { from, to })) return
  const name = world.random.pick(TAGS)
  note(world, `answers a miss of ${name}`, from, to)
  world.operations.push({ kind: 'read-through', from: from.name, to: to.name, name })
  const register = from.repository.tags.get(name)
  if (register === undefined) return
  const { digest } = register.current
  const manifest = from.repository.manifests.get(digest)
  merge(to, { kind: 'repository.deleted', death: from.repository.dead }, [])
  if (manifest !== undefined) {
    merge(to, { kind: 'manifest.deleted', digest, death: manifest.dead }, [])
    merge(to, { kind: 'manifest.put', digest, alive: manifest.alive }, manifest.alive.events)
  }
  for (const tag of register.history.values()) merge(to, { kind: 'tag', name, tag }, tag.events)
  deriveLinks(to.repository)
}

/** The network heals. Everything is numbered and delivered, and regions compare themselves as they do regularly. */
function settle(world: World): void {
  const { regions, restored, nowMs } = world
  // Several rounds: the first region also has to learn what the last one learned last.
  const isCompared = restored || world.lifecycle
  for (let round = 0; round < (isCompared ? 3 : 1); round++) {
    for (const region of regions) numberSome(world, region, Number.MAX_SAFE_INTEGER)
    for (const a of regions)
      for (const b of regions) if (a.name < b.name && !isContinuous(a, b)) compareRegions(a, b, nowMs)
    for (const from of regions)
      for (const to of regions) if (from !== to) applyFrom(world, { from, to }, from.log)
    if (!isCompared) return
    for (const a of regions) for (const b of regions) if (a.name < b.name) compareRegions(a, b, nowMs)
  }
}
