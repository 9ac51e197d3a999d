// The state of one simulated history, its options, and the rules for what passes between two regions.

import { compareRegions, isContinuous } from './lifecycle.ts'
import type { ObservedDeath } from './observer.ts'
import type { Operation } from './operations.ts'
import type { Random } from './random.ts'
import type { SimulatedRegion } from './region.ts'

export const START_MS = 1_700_000_000_000

export interface World {
  readonly random: Random
  readonly regions: SimulatedRegion[]
  /** Links that are cut, as "from>to". */
  readonly cut: Set<string>
  nowMs: number
  readonly deaths: ObservedDeath[]
  readonly trace: string[]
  readonly operations: Operation[]
  readonly problems: string[]
  readonly misjudged: string[]
  writes: number
  readonly restores: boolean
  readonly lifecycle: boolean
  forgotten: number
  restored: boolean
  readonly broken: BrokenRule | undefined
}

/** A rule omitted on purpose. The simulation must detect it. */
export type BrokenRule =
  /** Derived tombstones get a new version instead of the one they tombstone. */
  | 'tombstones-rise'
  /** A death does not record what was delivered early. */
  | 'deaths-forget-early'
  /** A local write uses the clock, whatever registers it meets. */
  | 'writes-trust-the-clock'
  /** A gap in a log is skipped. */
  | 'holes-are-skipped'
  /** A death is forgotten although a live peer does not have it. */
  | 'forgets-what-peers-lack'
  /** A death is forgotten while a log may still deliver what it killed. */
  | 'forgets-what-is-still-to-come'
  /** The death of a child that a visible index keeps is forgotten with the child. */
  | 'forgets-kept-children'
  /** What a restored region logs again is merged although it was forgotten. */
  | 'what-is-logged-again-is-merged'
  /** The database continues to count from where its backup stood. */
  | 'a-start-goes-on-counting'
  /** A region that was evicted or restored is merged like any other. */
  | 'returners-are-merged'

export interface Options {
  /** Databases are also restored from backups. */
  readonly restores?: boolean
  /** Time passes in days; regions forget, are evicted, return and join. */
  readonly lifecycle?: boolean
  readonly broken?: BrokenRule
  /** Stops after this many steps, to find the shortest history that still fails. */
  readonly stepsMax?: number
}

/** The seed determines the kind of history, so that the seed alone replays it. */
export const KINDS: readonly Options[] = [
  {},
  { restores: true },
  { lifecycle: true },
  { restores: true, lifecycle: true },
]

export function note({ trace, nowMs }: World, text: string, ...[a, b]: SimulatedRegion[]): void {
  trace.push(`${nowMs - START_MS} ms ${a?.name ?? ''}${b === undefined ? '' : `>${b.name}`} ${text}`)
}

export function bigintText(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value
}

export interface Link {
  readonly from: SimulatedRegion
  readonly to: SimulatedRegion
}

export function isOpen(world: World, { from, to }: Link): boolean {
  return from !== to && !world.cut.has(`${from.name}>${to.name}`)
}

/** The link works, and neither side has forgotten without the other. */
export function isFollowed(world: World, { from, to }: Link): boolean {
  return isOpen(world, { from, to }) && (isContinuous(from, to) || world.broken === 'returners-are-merged')
}

/** Both regions learn everything from each other. */
export function compare(world: World, { from, to }: Link): void {
  if (!isOpen(world, { from, to }) || !isOpen(world, { from: to, to: from })) return
  note(world, isContinuous(from, to) ? 'compare' : 'meet', from, to)
  world.operations.push({ kind: 'compare', a: from.name, b: to.name })
  compareRegions(from, to, world.nowMs)
}
