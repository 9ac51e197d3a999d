// What clients do to a simulated region. The rules are those of shared/db: the version of a write exceeds every
// register that it meets, and a death records what its region had seen.

import { isOwnSeen } from '#shared/convergence/conflicts.ts'
import {
  type Death,
  type EarlyVersion,
  type Events,
  isSeen,
  linkOf,
  manifestOf,
  type Repository,
  type Seen,
  tagValue,
  type Written,
} from '#shared/convergence/registers.ts'
import { compareVersions, isNever, NEVER, type Version } from '#shared/convergence/version.ts'
import {
  isLinkVisible,
  isManifestVisible,
  isRepositoryVisible,
  isTagVisible,
} from '#shared/convergence/visibility.ts'
import { CONTENT, MANIFESTS, parentsOf } from './content.ts'
import { above, deriveLinks, type Fact, merge, type SimulatedRegion } from './region.ts'

/**
 * The version of a write is always above what was forgotten. Otherwise other regions would take the write for
 * forgotten.
 */
export function hlcOf(region: SimulatedRegion, nowMs: number): bigint {
  const clock = BigInt(nowMs + region.skewMs) << 16n
  return clock > region.prunedH ? clock : region.prunedH + 1n
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
      const { origin } = target.version
      if (isNever(target.version) || region.broken === 'deaths-forget-early') return false
      // A write that a restore removed from the region and a peer gave back also counts as delivered early.
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

/** False: a reference is missing and nothing was written. The blobs are uploaded just before, as clients do. */
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
  const version = { h: above(hlcOf(region, options.nowMs) + 1n, met), origin }
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
  const version = { h: above(hlcOf(region, options.nowMs) + 1n, [link.alive, link.dead.version]), origin }
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
  const version = { h: above(hlcOf(region, options.nowMs) + 1n, met), origin }
  const manifests = [...repository.manifests.keys()].map((digest) => manifestTarget(repository, digest))
  const death = deathOf(region, version, [...manifests, ...tagTargets(repository)])
  record(region, { kind: 'repository.deleted', death })
  return true
}

/** Records a write: merged here at once, and added to the outbox in the same commit. */
function record(region: SimulatedRegion, fact: Fact): void {
  merge(region, fact, [])
  deriveLinks(region.repository)
  region.outbox.push(fact)
  region.born.push(fact)
}
