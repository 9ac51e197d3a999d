// The registers of one repository, and how they merge. Pure: no clock, no I/O. The SQL in shared/db does the same to
// rows, and the simulation runs both on the same histories.
//
// Every register only grows, in a total order, so merging is commutative, associative and idempotent. Loss, repetition
// and reordering of events, early delivery, comparison and restored backups are therefore all the same operation.
//
// repository   dead (version, seen); alive is local: the greatest version ever merged or made in it
// manifest     alive (version, media type, prev) and dead (version, seen)
// link         of a blob: dead as above; alive is local, made by uploads, mounts and visible manifests
// tag          the greatest version, and every version ever merged (its history)
//
// The order is by version (h, origin), then by value: dead above alive, then bytes. A restored region may give one
// version to two values, and then every region must choose the same value.

import { compareVersions, NEVER, type Version } from './version.ts'

/** A position in the origin's log of the repository's shard. */
export interface EventRef {
  readonly epoch: number
  readonly seq: number
}

/** How a write's own region identifies it: epoch and outbox id. Ids rise with every write and are never reused. */
export interface Written {
  readonly epoch: number
  readonly id: number
}

/**
 * The events that told of a write. Empty until its origin has numbered the write. There is more than one if a restored
 * region numbered the write again under a new epoch. A region that saw any of them saw the write.
 */
export type Events = readonly EventRef[]

/**
 * For each origin, how far its log was applied: the last position in each epoch. Each epoch is judged separately,
 * because a later epoch does not include the one before it: after a restore a region may know less of the old epoch
 * than others do.
 */
export type Seen = Readonly<Record<string, readonly EventRef[]>>

export interface Death {
  readonly version: Version
  /** What the deleting region had applied of each log when it deleted. */
  readonly seen: Seen
  /**
   * Versions that the deleting region had merged before their events came (early delivery), and that this death kills.
   * Without them, a version that was seen and deleted would be reported as killed unseen.
   */
  readonly early: readonly EarlyVersion[]
  readonly events: Events
  readonly written: Written
  /**
   * For each epoch of the deleting region, the current one last: the last outbox id that the region had when it
   * deleted. A restore may have cut earlier epochs short.
   */
  readonly lineage: readonly Written[]
}

/**
 * One push gives one version to several registers. The subject (a tag or a digest) distinguishes them. A restored
 * region may give one version again to another value. The value distinguishes those.
 */
export interface EarlyVersion {
  readonly subject: string
  readonly version: Version
  /** `tagValue` of a tag's version; empty for a manifest. */
  readonly value: string
}

export interface Alive {
  readonly version: Version
  readonly mediaType: string
  readonly prev: Version
  readonly events: Events
  readonly written: Written
}

export interface TagVersion {
  /** The author and time (ISO 8601) of the write. They travel with the version and decide nothing. */
  readonly by?: { readonly actor: string; readonly at: string }
  readonly version: Version
  readonly digest: string
  readonly alive: boolean
  readonly prev: Version
  readonly events: Events
  readonly written: Written
}

export interface ManifestRegister {
  alive: Alive
  dead: Death
}

export interface LinkRegister {
  alive: Version
  dead: Death
}

export interface TagRegister {
  current: TagVersion
  /** Every version ever merged, by its identity. */
  readonly history: Map<string, TagVersion>
}

export interface Repository {
  alive: Version
  dead: Death
  readonly manifests: Map<string, ManifestRegister>
  readonly links: Map<string, LinkRegister>
  readonly tags: Map<string, TagRegister>
}

const NOT_WRITTEN: Written = Object.freeze({ epoch: 0, id: 0 })
export const NO_DEATH: Death = Object.freeze({
  version: NEVER,
  seen: Object.freeze({}),
  early: Object.freeze([]),
  events: Object.freeze([]),
  written: NOT_WRITTEN,
  lineage: Object.freeze([]),
})
const NOT_ALIVE: Alive = Object.freeze({
  version: NEVER,
  mediaType: '',
  prev: NEVER,
  events: [],
  written: NOT_WRITTEN,
})

export function emptyRepository(): Repository {
  return { alive: NEVER, dead: NO_DEATH, manifests: new Map(), links: new Map(), tags: new Map() }
}

export function manifestOf(repository: Repository, digest: string): ManifestRegister {
  const known = repository.manifests.get(digest)
  if (known !== undefined) return known
  const made = { alive: NOT_ALIVE, dead: NO_DEATH }
  repository.manifests.set(digest, made)
  return made
}

export function linkOf(repository: Repository, digest: string): LinkRegister {
  const known = repository.links.get(digest)
  if (known !== undefined) return known
  const made = { alive: NEVER, dead: NO_DEATH }
  repository.links.set(digest, made)
  return made
}

/** Compares by version, then dead above alive, then the digest's bytes. */
export function compareTagVersions(a: TagVersion, b: TagVersion): number {
  const byVersion = compareVersions(a.version, b.version)
  if (byVersion !== 0) return byVersion
  if (a.alive !== b.alive) return a.alive ? -1 : 1
  return compareBytes(a.digest, b.digest)
}

/** Compares by version, then the media type's bytes. */
export function compareAlive(a: Alive, b: Alive): number {
  return compareVersions(a.version, b.version) || compareBytes(a.mediaType, b.mediaType)
}

/**
 * Merges by version. Of two deaths with one version, only what both saw counts: a conflict may be reported needlessly,
 * but none is missed.
 */
export function mergeDeaths(a: Death, b: Death): Death {
  const order = compareVersions(a.version, b.version)
  if (order !== 0) return order > 0 ? a : b
  const early = a.early.filter((one) => b.early.some((other) => isSameVersion(one, other)))
  return {
    version: a.version,
    seen: seenByBoth(a.seen, b.seen),
    early,
    events: bothEvents(a.events, b.events),
    written: later(a.written, b.written),
    lineage: ownSeenByBoth(a.lineage, b.lineage),
  }
}

export function mergeRepositoryDeath(repository: Repository, death: Death): void {
  repository.dead = mergeDeaths(repository.dead, death)
}

export function mergeManifestAlive(repository: Repository, digest: string, alive: Alive): void {
  const register = manifestOf(repository, digest)
  const order = compareAlive(register.alive, alive)
  if (order < 0) register.alive = alive
  else if (order === 0)
    register.alive = {
      ...register.alive,
      events: bothEvents(register.alive.events, alive.events),
      written: later(register.alive.written, alive.written),
    }
  rise(repository, alive.version)
}

export function mergeManifestDeath(repository: Repository, digest: string, death: Death): void {
  const register = manifestOf(repository, digest)
  register.dead = mergeDeaths(register.dead, death)
}

export function mergeLinkDeath(repository: Repository, digest: string, death: Death): void {
  const register = linkOf(repository, digest)
  register.dead = mergeDeaths(register.dead, death)
}

export function mergeTag(repository: Repository, name: string, merged: TagVersion): void {
  const register = repository.tags.get(name)
  rise(repository, merged.version)
  if (register === undefined) {
    repository.tags.set(name, { current: merged, history: new Map([[identityOf(merged), merged]]) })
    return
  }
  const { history } = register
  const identity = identityOf(merged)
  const known = history.get(identity)
  const events = bothEvents(known?.events ?? [], merged.events)
  const written = known === undefined ? merged.written : later(known.written, merged.written)
  const all = { ...merged, events, written }
  history.set(identity, all)
  if (compareTagVersions(register.current, all) < 0) register.current = all
}

/**
 * Sets what the janitor derives from a death: the tag is dead with the version it had. A greater version would kill
 * pushes that did not see the death. The tombstone is not a new version: it has no event and no place in the history.
 */
export function deriveTombstone(register: TagRegister): void {
  register.current = { ...register.current, alive: false }
}

/** Returns what a version of a tag says. */
export function tagValue({ digest, alive }: Pick<TagVersion, 'digest' | 'alive'>): string {
  return `${digest} ${alive}`
}

/** Two regions agree on a version of a tag exactly when its identity is the same. */
export function identityOf(tag: TagVersion): string {
  return `${tag.version.h} ${tag.version.origin} ${tagValue(tag)}`
}

function rise(repository: Repository, version: Version): void {
  if (compareVersions(version, repository.alive) > 0) repository.alive = version
}

export function isSameVersion(a: EarlyVersion, b: EarlyVersion): boolean {
  return a.subject === b.subject && a.value === b.value && compareVersions(a.version, b.version) === 0
}

function ownSeenByBoth(a: readonly Written[], b: readonly Written[]): Written[] {
  return a.flatMap(({ epoch, id }) => {
    const other = b.find((one) => one.epoch === epoch)
    return other === undefined ? [] : [{ epoch, id: Math.min(id, other.id) }]
  })
}

/**
 * Chooses between two writes to which a restored region gave one version and one value. The result does not depend on
 * the order of merging.
 */
function later(a: Written, b: Written): Written {
  return (a.epoch - b.epoch || a.id - b.id) >= 0 ? a : b
}

function seenByBoth(a: Seen, b: Seen): Seen {
  const origins = Object.keys(a).filter((origin) => origin in b)
  return Object.fromEntries(origins.map((origin) => [origin, lower(a[origin] ?? [], b[origin] ?? [])]))
}

function bothEvents(a: Events, b: Events): Events {
  if (a.length === 0 || a === b) return b
  return [...a, ...b.filter((ref) => !a.some(({ epoch, seq }) => epoch === ref.epoch && seq === ref.seq))]
}

function lower(a: readonly EventRef[], b: readonly EventRef[]): EventRef[] {
  return a.flatMap(({ epoch, seq }) => {
    const other = b.find((ref) => ref.epoch === epoch)
    return other === undefined ? [] : [{ epoch, seq: Math.min(seq, other.seq) }]
  })
}

/** True if one of a write's events lies within what was applied of its origin's log. */
export function isSeen(seen: Seen, origin: string, events: Events): boolean {
  const applied = seen[origin] ?? []
  return events.some((event) => applied.some(({ epoch, seq }) => epoch === event.epoch && event.seq <= seq))
}

function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
