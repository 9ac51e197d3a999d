// Events over days: regions are cut off and come back, are evicted, forget, and join.

import { apply } from './follow.ts'
import { evictSilent, forgetAt, hear } from './lifecycle.ts'
import { showing, writesIn } from './observer.ts'
import { createRegion, number, type SimulatedRegion } from './region.ts'
import { compare, isFollowed, note, type World } from './state.ts'

const DAY_MS = 86_400_000

export function pass(world: World, region: SimulatedRegion): void {
  const { random } = world
  switch (random.int(9)) {
    case 0:
    case 1:
    case 2:
      daysPass(world)
      break
    case 3:
      if (random.chance(0.2)) join(world)
      break
    case 4:
    case 5:
      comeOrGo(world, region)
      break
    case 6:
    case 7:
      compare(world, { from: random.pick(world.regions), to: region })
      break
    default:
      forgetAndCheck(world, region)
  }
}

/** Forgetting changes nothing that is visible. */
function forgetAndCheck(world: World, region: SimulatedRegion): void {
  const held = () => new Set(writesIn(region, undefined).map(({ identity }) => identity))
  const [before, shown] = [held(), showing(region.repository)]
  world.forgotten += forgetAt(region, world.nowMs)
  note(world, 'forgets', region)
  const [after, shows] = [held(), showing(region.repository)]
  for (const identity of before) if (!after.has(identity)) region.gone.add(identity)
  for (const one of shown)
    if (!shows.has(one)) world.problems.push(`${region.name}: ${one} was forgotten while it showed`)
}

/**
 * What a region forgot does not come back to it, except as the child of an index whose push did not know of the death.
 */
export function checkGone({ regions, problems }: World): void {
  for (const { name, gone, repository } of regions) {
    if (gone.size === 0) continue
    for (const one of showing(repository, () => []))
      if (gone.has(one)) problems.push(`${name}: ${one} was forgotten and shows again`)
  }
}

/** Days pass. Regions whose links work hear each other and usually follow; silent ones are evicted. */
function daysPass(world: World): void {
  const { regions, random } = world
  world.nowMs += (1 + random.int(8)) * DAY_MS
  note(world, 'days pass')
  for (const region of regions) if (random.chance(0.7)) number(region, Number.MAX_SAFE_INTEGER)
  for (const to of regions)
    for (const from of regions) {
      if (!isFollowed(world, { from, to })) continue
      hear(to, from, world.nowMs)
      if (random.chance(0.6)) apply(to, from, from.log)
    }
  for (const region of regions) evictSilent(region, world.nowMs)
  for (const region of regions) {
    for (const peer of regions) if (random.chance(0.4)) compare(world, { from: peer, to: region })
    if (random.chance(0.7)) forgetAndCheck(world, region)
  }
}

/** A region loses all its links, or gets them back. */
function comeOrGo(world: World, region: SimulatedRegion): void {
  const { random, regions, cut } = world
  const isGoing = random.chance(0.5)
  note(world, isGoing ? 'is cut off' : 'is back', region)
  for (const { name } of regions)
    for (const link of [`${name}>${region.name}`, `${region.name}>${name}`])
      if (isGoing) cut.add(link)
      else cut.delete(link)
}

/** Adds a new region. It is empty and has met no other region. It is ready when it has scanned one. */
function join(world: World): void {
  const name = 'za'
  if (world.regions.some((region) => region.name === name)) return
  world.regions.push(createRegion(name, world.broken))
}
