// What a repository shows. This is the one definition of "visible": reads, lists, deletes and the comparison of regions
// use these predicates, and shared/db has them as SQL.
//
// manifest   alive above its death and its repository's, or a visible index of the repository names it
// tag        alive, newer than its manifest's death and its repository's, and its manifest is visible
// link       alive above its death and its repository's

import type { ManifestRegister, Repository } from './registers.ts'
import { compareVersions, type Version } from './version.ts'

/** How many levels of nested indexes are followed. */
export const INDEX_DEPTH_MAX = 4

/**
 * Returns the indexes that name a manifest. Content is immutable, so this is a property of digests, not of
 * repositories.
 */
export type ParentsOf = (digest: string) => readonly string[]

export function isManifestVisible(
  repository: Repository,
  digest: string,
  parentsOf: ParentsOf,
  depth = INDEX_DEPTH_MAX,
): boolean {
  const register = repository.manifests.get(digest)
  if (register === undefined) return false
  if (isAbove(register.alive.version, register.dead.version, repository)) return true
  // An index can keep only a membership that died. One that never lived here has no bytes to show.
  if (depth === 0 || !hasLived(register)) return false
  return parentsOf(digest).some((parent) => isManifestVisible(repository, parent, parentsOf, depth - 1))
}

function hasLived({ alive }: ManifestRegister): boolean {
  return alive.version.h > 0n
}

export function isTagVisible(repository: Repository, name: string, parentsOf: ParentsOf): boolean {
  const current = repository.tags.get(name)?.current
  if (current === undefined || !current.alive) return false
  const manifest = repository.manifests.get(current.digest)
  if (manifest === undefined) return false
  return (
    isAbove(current.version, manifest.dead.version, repository) &&
    isManifestVisible(repository, current.digest, parentsOf)
  )
}

export function isLinkVisible(repository: Repository, digest: string): boolean {
  const link = repository.links.get(digest)
  return link !== undefined && isAbove(link.alive, link.dead.version, repository)
}

export function isRepositoryVisible(repository: Repository): boolean {
  return compareVersions(repository.alive, repository.dead.version) > 0
}

function isAbove(version: Version, death: Version, repository: Repository): boolean {
  return compareVersions(version, death) > 0 && compareVersions(version, repository.dead.version) > 0
}
