// One simulated region: the registers of one repository, an outbox, a log under epochs, and how far it applied the logs
// of others. Local writes follow the rules of shared/db (a write's version exceeds every register it meets); merges are
// those of shared/convergence.

import { isOwnSeen } from '#shared/convergence/conflicts.ts'
import {
  type Alive,
  type Death,
  type EarlyVersion,
  type EventRef,
  type Events,
  emptyRepository,
  isSeen,
  linkOf,
  manifestOf,
  mergeLinkDeath,
  mergeManifestAlive,
  mergeManifestDeath,
  mergeRepositoryDeath,
  mergeTag,
  type Repository,
  type Seen,
  type TagVersion,
  tagValue,
  type Written,
} from '#shared/convergence/registers.ts'
import { compareVersions, NEVER, type Version } from '#shared/convergence/version.ts'
import {
  isLinkVisible,
  isManifestVisible,
  isRepositoryVisible,
  isTagVisible,
} from '#shared/convergence/visibility.ts'
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
  /** How far the log of each origin was applied: its last place in each epoch, the newest last. */
  cursors: Record<string, readonly EventRef[]>
  backup: Backup | undefined
  /** For the observer: the identity of every write that this database ever merged. */
  merged: Set<string>
  /** A rule that this region leaves out: see world.ts. */
  readonly broken: string | undefined
}

/** What a backup of the database holds. */
interface Backup {
  readonly repository: Repository
  readonly outbox: readonly Fact[]
  readonly epoch: number
  readonly lineage: readonly Written[]
  readonly lastId: number
  readonly log: readonly LoggedFact[]
  readonly cursors: Record<string, readonly EventRef[]>
  readonly merged: ReadonlySet<string>
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
    broken,
  }
}

export function hlcOf(region: SimulatedRegion, nowMs: number): bigint {
  return BigInt(nowMs + region.skewMs) << 16n
}

/** The greatest of a clock and one more than each version met. */
function above(clock: bigint, met: readonly Version[]): bigint {
  return met.reduce((h, version) => (version.h + 1n > h ? version.h + 1n : h), clock)
}

function greater(a: Version, b: Version): Version {
  return compareVersions(a, b) >= 0 ? a : b
}

function nextWritten(region: SimulatedRegion): Written {
  return { epoch: region.epoch, id: ++region.lastId }
}

/** A death of this version, with what the region has seen. `targets`: the registers that it kills. */
function deathOf(region: SimulatedRegion, version: Version, targets: readonly Target[]): Death {
  const seen: Seen = { ...region.cursors }
  const written = nextWritten(region)
  const lineage = [...region.lineage, written]
  const early = targets
    .filter((target) => {
      const { h, origin } = target.version
      if (h === 0n || region.broken === 'deaths-forget-early') return false
      // What a restore took from the region and a peer gave back to it counts as told early, too.
      if (origin === region.name) return !isOwnSeen({ lineage }, target.written)
      return !isSeen(seen, origin, target.events)
    })
    .map(({ subject, version, value }) => ({ subject, version, value }))
  return { version, seen, events: [], written, lineage, early }
}

type Target = EarlyVersion & { readonly events: Events; readonly written: Written }

/** The versions of tags that a death of the digest kills; without a digest, all. */
function tagTargets(repository: Repository, digest?: string): Target[] {
  return [...repository.tags].flatMap(([subject, { history }]) =>
    [...history.values()]
      .filter((version) => digest === undefined || version.digest === digest)
      .map((version) => ({ ...version, subject, value: tagValue(version) })),
  )
}

function manifestTarget(repository: Repository, digest: string): Target {
  const { version, events, written } = manifestOf(repository, digest).alive
  return { subject: digest, version, value: '', events, written }
}

/** False: a reference is missing, nothing was written. The blobs are uploaded just before, as clients do. */
export function push(
  region: SimulatedRegion,
  options: { digest: string; tags: readonly string[]; nowMs: number },
): boolean {
  const { repository, name: origin } = region
  const { digest, tags, nowMs } = options
  const content = CONTENT[digest]
  if (content === undefined) throw new Error(`no such content: ${digest}`)
  if (!content.children.every((child) => isManifestVisible(repository, child, parentsOf))) return false
  const clock = hlcOf(region, nowMs)
  if (!isRepositoryVisible(repository))
    repository.alive = { h: above(clock, [repository.dead.version]), origin }
  for (const blob of content.blobs) {
    const link = linkOf(repository, blob)
    link.alive = { h: above(clock, [link.alive, link.dead.version, repository.dead.version]), origin }
  }
  const register = manifestOf(repository, digest)
  const met = [repository.dead.version, register.alive.version, register.dead.version]
  const version = { h: above(clock, met), origin }
  const prev = greater(register.alive.version, register.dead.version)
  const alive = { version, prev, mediaType: 'm', written: nextWritten(region) }
  record(region, { kind: 'manifest.put', digest, alive })
  for (const name of tags.toSorted()) {
    const current = repository.tags.get(name)?.current
    const before = current?.version ?? NEVER
    const h = region.broken === 'writes-trust-the-clock' ? clock : above(version.h, [before])
    const tagVersion = { h, origin }
    record(region, {
      kind: 'tag',
      name,
      tag: { version: tagVersion, digest, alive: true, prev: before, written: nextWritten(region) },
    })
  }
  return true
}

/** False: the tag is not visible. */
export function deleteTag(region: SimulatedRegion, options: { name: string; nowMs: number }): boolean {
  const { repository, name: origin } = region
  const current = repository.tags.get(options.name)?.current
  if (current === undefined || !isTagVisible(repository, options.name, parentsOf)) return false
  const h = above(hlcOf(region, options.nowMs), [current.version, repository.dead.version])
  const tag = {
    version: { h, origin },
    digest: current.digest,
    alive: false,
    prev: current.version,
    written: nextWritten(region),
  }
  record(region, { kind: 'tag', name: options.name, tag })
  return true
}

/** False: not visible, or a visible index names it. */
export function deleteManifest(region: SimulatedRegion, options: { digest: string; nowMs: number }): boolean {
  const { repository, name: origin } = region
  const { digest } = options
  if (!isManifestVisible(repository, digest, parentsOf)) return false
  if (parentsOf(digest).some((parent) => isManifestVisible(repository, parent, parentsOf))) return false
  const register = manifestOf(repository, digest)
  const tags = [...repository.tags.values()].map(({ current }) => current)
  const met = [
    register.alive.version,
    register.dead.version,
    ...tags.filter((tag) => tag.digest === digest).map(({ version }) => version),
  ]
  const version = { h: above(hlcOf(region, options.nowMs), met), origin }
  const targets = [manifestTarget(repository, digest), ...tagTargets(repository, digest)]
  record(region, { kind: 'manifest.deleted', digest, death: deathOf(region, version, targets) })
  return true
}

/** False: not linked, or a visible manifest names it. */
export function deleteLink(region: SimulatedRegion, options: { digest: string; nowMs: number }): boolean {
  const { repository, name: origin } = region
  const { digest } = options
  if (!isLinkVisible(repository, digest)) return false
  const naming = MANIFESTS.filter((manifest) => CONTENT[manifest]?.blobs.includes(digest))
  if (naming.some((manifest) => isManifestVisible(repository, manifest, parentsOf))) return false
  const link = linkOf(repository, digest)
  const version = { h: above(hlcOf(region, options.nowMs), [link.alive, link.dead.version]), origin }
  record(region, { kind: 'link.deleted', digest, death: deathOf(region, version, []) })
  return true
}

/** False: there is no live repository. */
export function deleteRepository(region: SimulatedRegion, options: { nowMs: number }): boolean {
  const { repository, name: origin } = region
  if (!isRepositoryVisible(repository)) return false
  const met = [
    repository.alive,
    repository.dead.version,
    ...[...repository.manifests.values()].flatMap(({ alive, dead }) => [alive.version, dead.version]),
    ...[...repository.links.values()].flatMap(({ alive, dead }) => [alive, dead.version]),
    ...[...repository.tags.values()].map(({ current }) => current.version),
  ]
  const version = { h: above(hlcOf(region, options.nowMs), met), origin }
  const manifests = [...repository.manifests.keys()].map((digest) => manifestTarget(repository, digest))
  const death = deathOf(region, version, [...manifests, ...tagTargets(repository)])
  record(region, { kind: 'repository.deleted', death })
  return true
}

/** A write: merged here at once, and in the outbox by the same commit. */
function record(region: SimulatedRegion, fact: Fact): void {
  merge(region, fact, [])
  region.outbox.push(fact)
}

/** Merges a fact that came from anywhere. `events`: where it stands in its origin's log, if that is known. */
export function merge(region: SimulatedRegion, fact: Fact, events: Events): void {
  const { repository } = region
  switch (fact.kind) {
    case 'manifest.put':
      mergeManifestAlive(repository, fact.digest, { ...fact.alive, events })
      region.merged.add(manifestIdentity(fact.digest, fact.alive))
      break
    case 'tag':
      mergeTag(repository, fact.name, { ...fact.tag, events })
      region.merged.add(tagIdentity(fact.name, fact.tag))
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
  deriveLinks(repository)
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
function deriveLinks(repository: Repository): void {
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
    // Own registers learn their event as others do: from the log.
    merge(region, fact, [ref])
  }
}

/** Notes that an origin's log was applied up to here. */
export function advance(region: SimulatedRegion, origin: string, ref: EventRef): void {
  const before = region.cursors[origin] ?? []
  region.cursors[origin] = [...before.filter(({ epoch }) => epoch !== ref.epoch), ref]
}

export function takeBackup(region: SimulatedRegion): void {
  const { repository, outbox, epoch, lineage, lastId, log, cursors, merged } = region
  region.backup = {
    repository: copyOf(repository),
    outbox: [...outbox],
    epoch,
    lineage,
    lastId,
    log: [...log],
    cursors: { ...cursors },
    merged: new Set(merged),
  }
}

/** The database is what it was at the backup. False: there is none. */
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
  return true
}

/** The region counts under a new epoch; outbox ids jump, so that none is given twice. */
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

/** One way of a comparison: everything that one region holds, with what is known of its events, merged in another. */
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
}

/** What a comparison of regions would compare: deaths, visible tags, visible manifests. */
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
