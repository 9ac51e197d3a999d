// One simulated region: the registers of one repository, an outbox, a log under epochs, and how far it applied the logs
// of others. Local writes follow the rules of shared/db (the version of a write exceeds every register it meets).
// Merges are those of shared/convergence.

import type { DeathKey } from '#shared/convergence/forgetting.ts'
import {
  type Alive,
  type Death,
  type EventRef,
  type Events,
  emptyRepository,
  linkOf,
  mergeLinkDeath,
  mergeManifestAlive,
  mergeManifestDeath,
  mergeRepositoryDeath,
  mergeTag,
  type Repository,
  type TagVersion,
  tagValue,
  type Written,
} from '#shared/convergence/registers.ts'
import { isNever, NEVER, type Version } from '#shared/convergence/version.ts'
import { isLinkVisible, isManifestVisible, isTagVisible } from '#shared/convergence/visibility.ts'
import { CONTENT, LAYERS, MANIFESTS, parentsOf, TAGS } from './content.ts'

export type Fact =
  | { readonly kind: 'manifest.put'; readonly digest: string; readonly alive: Omit<Alive, 'events'> }
  | { readonly kind: 'tag'; readonly name: string; readonly tag: Omit<TagVersion, 'events'> }
  | { readonly kind: 'manifest.deleted'; readonly digest: string; readonly death: Death }
  | { readonly kind: 'link.deleted'; readonly digest: string; readonly death: Death }
  | { readonly kind: 'repository.deleted'; readonly death: Death }

export interface LoggedFact {
  readonly ref: EventRef
  readonly fact: Fact
}

export interface SimulatedRegion {
  readonly name: string
  /** Milliseconds that its clock is ahead of the world's. */
  skewMs: number
  repository: Repository
  /** Facts of writes that the relay has not numbered yet. */
  outbox: Fact[]
  epoch: number
  lineage: readonly Written[]
  /** The last outbox id. */
  lastId: number
  log: LoggedFact[]
  /** How far the log of each origin was applied: its last position in each epoch, the newest last. */
  cursors: Record<string, readonly EventRef[]>
  backup: Backup | undefined
  /** For the observer: the identity of every write that this database ever merged. */
  merged: Set<string>
  /** For the observer: the identity of every write that this database forgot. */
  gone: Set<string>
  /** For the observer: every write made here, regardless of restores. */
  readonly born: Fact[]
  /** A rule that this region omits: see world.ts. */
  readonly broken: string | undefined
  /** The last outbox id of each origin and epoch that was merged, by any path. */
  told: Record<string, readonly Written[]>
  /** The same for what arrived by log. */
  applied: Record<string, readonly Written[]>
  /** Counts merges. The arrival of each death is recorded in it, because clocks may step back and this does not. */
  tick: number
  deathTicks: Map<string, number>
  pairs: Map<string, Pair>
  prunedH: bigint
  quarantined: readonly string[]
}

/** What a region records of a peer. */
export interface Pair {
  /** The number of their last comparison. Both sides have the same number unless one was restored or evicted. */
  readonly meeting: number
  /** The tick at which that comparison began. */
  readonly comparedTick: number
  readonly heardMs: number
}

/** The content of a backup of the database. */
interface Backup {
  readonly repository: Repository
  readonly outbox: readonly Fact[]
  readonly epoch: number
  readonly lineage: readonly Written[]
  readonly lastId: number
  readonly log: readonly LoggedFact[]
  readonly cursors: Record<string, readonly EventRef[]>
  readonly merged: ReadonlySet<string>
  readonly gone: ReadonlySet<string>
  readonly told: Record<string, readonly Written[]>
  readonly applied: Record<string, readonly Written[]>
  readonly tick: number
  readonly deathTicks: ReadonlyMap<string, number>
  readonly pairs: ReadonlyMap<string, Pair>
  readonly prunedH: bigint
  readonly quarantined: readonly string[]
}

export function createRegion(name: string, broken?: string): SimulatedRegion {
  return {
    name,
    skewMs: 0,
    repository: emptyRepository(),
    outbox: [],
    epoch: 1,
    lineage: [],
    lastId: 0,
    log: [],
    cursors: {},
    backup: undefined,
    merged: new Set(),
    gone: new Set(),
    born: [],
    told: {},
    applied: {},
    tick: 0,
    deathTicks: new Map(),
    pairs: new Map(),
    prunedH: 0n,
    quarantined: [],
    broken,
  }
}

/** The greatest of a clock and one more than each version met. */
export function above(clock: bigint, met: readonly Version[]): bigint {
  return met.reduce((h, version) => (version.h + 1n > h ? version.h + 1n : h), clock)
}

/**
 * Merges a fact from any source. After merging a batch, the caller derives the links. `events` is the position in the
 * origin's log, if it is known.
 */
export function merge(region: SimulatedRegion, fact: Fact, events: Events): void {
  const { repository } = region
  const key = deathKey(fact)
  switch (fact.kind) {
    case 'manifest.put':
      mergeManifestAlive(repository, fact.digest, { ...fact.alive, events })
      break
    case 'tag':
      mergeTag(repository, fact.name, { ...fact.tag, events })
      break
    case 'manifest.deleted':
      mergeManifestDeath(repository, fact.digest, deathAt(fact.death, events))
      break
    case 'link.deleted':
      mergeLinkDeath(repository, fact.digest, deathAt(fact.death, events))
      break
    case 'repository.deleted':
      mergeRepositoryDeath(repository, deathAt(fact.death, events))
  }
  const { version, written } = writtenOf(fact)
  if (!isNever(version)) {
    region.tick++
    region.merged.add(factIdentity(fact))
    region.told[version.origin] = raised(region.told[version.origin], written)
    const at = `${key} ${version.h} ${version.origin}`
    if (key !== undefined && !region.deathTicks.has(at)) region.deathTicks.set(at, region.tick)
  }
}

export function writtenOf(fact: Fact): { version: Version; written: Written } {
  if (fact.kind === 'manifest.put') return fact.alive
  return fact.kind === 'tag' ? fact.tag : fact.death
}

export function raised(known: readonly Written[] = [], { epoch, id }: Written): readonly Written[] {
  const at = known.find((one) => one.epoch === epoch)
  if (at !== undefined && at.id >= id) return known
  return [...known.filter((one) => one !== at), { epoch, id }]
}

function deathKey(fact: Fact): DeathKey | undefined {
  if (fact.kind === 'repository.deleted') return 'repository'
  if (fact.kind === 'manifest.deleted') return `manifest ${fact.digest}`
  if (fact.kind === 'link.deleted') return `link ${fact.digest}`
  return fact.kind === 'tag' ? `tag ${fact.name}` : undefined
}

/** The observer's name for a write. */
export function factIdentity(fact: Fact): string {
  if (fact.kind === 'manifest.put') return manifestIdentity(fact.digest, fact.alive)
  if (fact.kind === 'tag') return tagIdentity(fact.name, fact.tag)
  const subject = fact.kind === 'repository.deleted' ? 'all' : fact.digest
  return `${fact.kind} ${subject} ${fact.death.version.h} ${fact.death.version.origin}`
}

export function manifestIdentity(digest: string, { version }: Pick<Alive, 'version'>): string {
  return `${digest} ${version.h} ${version.origin}`
}

export function tagIdentity(name: string, tag: Omit<TagVersion, 'events'>): string {
  return `${name} ${tag.version.h} ${tag.version.origin} ${tagValue(tag)}`
}

function deathAt(death: Death, events: Events): Death {
  return events.length === 0 ? death : { ...death, events }
}

/** A blob that a visible manifest names is linked, whatever killed its link. */
export function deriveLinks(repository: Repository): void {
  for (const digest of MANIFESTS) {
    const blobs = CONTENT[digest]?.blobs ?? []
    if (blobs.length === 0 || !isManifestVisible(repository, digest, parentsOf)) continue
    for (const blob of blobs) {
      const link = linkOf(repository, blob)
      const h = above(link.alive.h, [link.dead.version, repository.dead.version])
      if (h > link.alive.h) link.alive = { h, origin: '' }
    }
  }
}

/** The relay: numbers up to `count` facts of the outbox, in order. */
export function number(region: SimulatedRegion, count: number): void {
  for (const fact of region.outbox.splice(0, count)) {
    const last = region.log.at(-1)
    const seq = last?.ref.epoch === region.epoch ? last.ref.seq + 1 : 1
    const ref = { epoch: region.epoch, seq }
    region.log.push({ ref, fact })
    advance(region, region.name, ref)
    const { version, written } = writtenOf(fact)
    region.applied[version.origin] = raised(region.applied[version.origin], written)
    // A region learns the events of its own registers from the log, as others do.
    merge(region, fact, [ref])
  }
}

/** Records that an origin's log was applied up to here. */
export function advance(region: SimulatedRegion, origin: string, ref: EventRef): void {
  const before = region.cursors[origin] ?? []
  region.cursors[origin] = [...before.filter(({ epoch }) => epoch !== ref.epoch), ref]
}

export function takeBackup(region: SimulatedRegion): void {
  const { repository, outbox, epoch, lineage, lastId, log, cursors, merged, gone } = region
  const { told, applied, tick, deathTicks, pairs, prunedH, quarantined } = region
  region.backup = {
    repository: copyOf(repository),
    outbox: [...outbox],
    epoch,
    lineage,
    lastId,
    log: [...log],
    cursors: { ...cursors },
    merged: new Set(merged),
    gone: new Set(gone),
    told: { ...told },
    applied: { ...applied },
    tick,
    deathTicks: new Map(deathTicks),
    pairs: new Map(pairs),
    prunedH,
    quarantined,
  }
}

/** Resets the database to the backup. False: there is none. */
export function restoreBackup(region: SimulatedRegion): boolean {
  const { backup } = region
  if (backup === undefined) return false
  region.repository = copyOf(backup.repository)
  region.outbox = [...backup.outbox]
  region.epoch = backup.epoch
  region.lineage = backup.lineage
  region.lastId = backup.lastId
  region.log = [...backup.log]
  region.cursors = { ...backup.cursors }
  region.merged = new Set(backup.merged)
  region.gone = new Set(backup.gone)
  region.told = { ...backup.told }
  region.applied = { ...backup.applied }
  region.tick = backup.tick
  region.deathTicks = new Map(backup.deathTicks)
  region.pairs = new Map(backup.pairs)
  region.prunedH = backup.prunedH
  region.quarantined = backup.quarantined
  return true
}

/** Starts a new epoch for the region. Outbox ids jump, so that none is assigned twice. */
export function raiseEpoch(region: SimulatedRegion, epoch: number): void {
  region.lineage = [...region.lineage, { epoch: region.epoch, id: region.lastId }]
  region.epoch = epoch
  region.lastId += 2 ** 32
}

function copyOf(repository: Repository): Repository {
  const { alive, dead, manifests, links, tags } = repository
  return {
    alive,
    dead,
    manifests: new Map([...manifests].map(([digest, register]) => [digest, { ...register }])),
    links: new Map([...links].map(([digest, register]) => [digest, { ...register }])),
    tags: new Map(
      [...tags].map(([name, { current, history }]) => [name, { current, history: new Map(history) }]),
    ),
  }
}

/**
 * One direction of a comparison: merges everything that one region holds, with what is known of its events, into
 * another.
 */
export function mergeAll(to: SimulatedRegion, from: SimulatedRegion): void {
  const { repository } = from
  merge(to, { kind: 'repository.deleted', death: repository.dead }, [])
  for (const [digest, { alive, dead }] of repository.manifests) {
    merge(to, { kind: 'manifest.deleted', digest, death: dead }, [])
    if (alive.version.h > 0n) merge(to, { kind: 'manifest.put', digest, alive }, alive.events)
  }
  for (const [digest, { dead }] of repository.links)
    merge(to, { kind: 'link.deleted', digest, death: dead }, [])
  for (const [name, { history }] of repository.tags)
    for (const tag of history.values()) merge(to, { kind: 'tag', name, tag }, tag.events)
  deriveLinks(to.repository)
}

/** What a comparison of regions compares: deaths, visible tags, visible manifests. */
export function effective(region: SimulatedRegion): unknown {
  const { repository } = region
  const text = ({ h, origin }: Version) => `${h} ${origin}`
  return {
    repository: text(repository.dead.version),
    deaths: MANIFESTS.map((digest) => text(repository.manifests.get(digest)?.dead.version ?? NEVER)),
    linkDeaths: LAYERS.map((digest) => text(repository.links.get(digest)?.dead.version ?? NEVER)),
    tags: TAGS.map((name) =>
      isTagVisible(repository, name, parentsOf) ? repository.tags.get(name)?.current.digest : null,
    ),
    manifests: MANIFESTS.filter((digest) => isManifestVisible(repository, digest, parentsOf)),
    namedLayers: LAYERS.filter(
      (layer) =>
        isLinkVisible(repository, layer) &&
        MANIFESTS.some(
          (digest) =>
            CONTENT[digest]?.blobs.includes(layer) && isManifestVisible(repository, digest, parentsOf),
        ),
    ),
  }
}
