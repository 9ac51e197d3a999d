// What a region may forget, and what a region that was away gives up when it meets a region that forgot.
//
// A death is forgotten together with everything it killed, once no live peer and no log can bring that back. This holds
// when every live peer has finished a comparison that began after the death was merged here (so the peer has the
// death), and no event is still to come by log for anything that was told early. The caller judges this for each death.
// `forget` judges the other reasons to keep it. A child that a visible index keeps is not dead, so its death stays. The
// death of a tag's version that a live peer may not have also stays: without it, what that version had overwritten
// would show again.
//
// A region that was evicted, or whose database was restored, may hold what a peer has forgotten. The peer has forgotten
// a register if it does not hold it at all, its h is at most the peer's `prunedH`, and the peer may have seen it. The
// returning region does not drop it silently. It takes the death back, with the version of what it kills, so that
// another region that holds the same register learns of the death in the usual way. If the returner only dropped it, it
// would come back from that region. The peer may have seen every write up to the greatest outbox id it was ever told. A
// cursor is not enough: what came early and was forgotten lies beyond the cursor.

import {
  type Alive,
  type Death,
  type ManifestRegister,
  NO_DEATH,
  type Repository,
  type TagVersion,
  type Written,
} from './registers.ts'
import { compareVersions, isNever, type Version } from './version.ts'
import { isManifestVisible, type ParentsOf } from './visibility.ts'

/** For each origin, the last outbox id of each epoch that was ever merged here, on any path. */
export type Told = Readonly<Record<string, readonly Written[]>>

export type DeathKey = 'repository' | `manifest ${string}` | `link ${string}` | `tag ${string}`

export interface Forgetting {
  readonly parentsOf: ParentsOf
  /** True if a death, or a tag's version, is old enough and known to every live peer. */
  readonly isForgettable: (key: DeathKey, version: Version) => boolean
}

/** Forgets what may be forgotten. Returns the greatest h that was forgotten, or 0n if nothing was. */
export function forget(repository: Repository, { parentsOf, isForgettable }: Forgetting): bigint {
  let prunedH = 0n
  const isKept = (digest: string) => isManifestVisible(repository, digest, parentsOf)
  const went = ({ h }: Version) => {
    if (h > prunedH) prunedH = h
  }

  const { version: whole } = repository.dead
  const isWholeForgotten =
    !isNever(whole) &&
    isForgettable('repository', whole) &&
    ![...repository.manifests].some(([digest, { alive }]) => isAtMost(alive.version, whole) && isKept(digest))
  if (isWholeForgotten) {
    went(whole)
    removeManifests(
      repository,
      (_, { alive, dead }) => isAtMost(alive.version, whole) && isAtMost(dead.version, whole),
    )
    removeTags(repository, ({ version }) => isAtMost(version, whole))
    for (const [digest, { alive, dead }] of repository.links)
      if (isAtMost(alive, whole) && isAtMost(dead.version, whole)) repository.links.delete(digest)
    repository.dead = NO_DEATH
  }

  for (const [digest, register] of [...repository.manifests]) {
    const { version } = register.dead
    if (isNever(version) || !isForgettable(`manifest ${digest}`, version)) continue
    const isAlive = compareVersions(register.alive.version, version) > 0
    if (!isAlive && isKept(digest)) continue
    const killed = [...repository.tags].filter(
      ([, { current }]) => current.digest === digest && isAtMost(current.version, version),
    )
    if (!killed.every(([name, { current }]) => isForgettable(`tag ${name}`, current.version))) continue
    went(version)
    removeTags(repository, (tag) => tag.digest === digest && isAtMost(tag.version, version))
    if (isAlive) register.dead = NO_DEATH
    else repository.manifests.delete(digest)
  }

  for (const [digest, link] of [...repository.links]) {
    const { version } = link.dead
    if (isNever(version) || !isForgettable(`link ${digest}`, version)) continue
    went(version)
    if (compareVersions(link.alive, version) > 0) link.dead = NO_DEATH
    else repository.links.delete(digest)
  }

  removeTags(repository, ({ alive, version }, name) => {
    if (alive || !isForgettable(`tag ${name}`, version)) return false
    went(version)
    return true
  })
  return prunedH
}

function removeManifests(
  repository: Repository,
  isGone: (digest: string, register: ManifestRegister) => boolean,
): void {
  for (const [digest, register] of repository.manifests)
    if (isGone(digest, register)) repository.manifests.delete(digest)
}

function removeTags(repository: Repository, isGone: (current: TagVersion, name: string) => boolean): void {
  for (const [name, { current }] of repository.tags) if (isGone(current, name)) repository.tags.delete(name)
}

export interface Peer {
  readonly repository: Repository
  readonly prunedH: bigint
  readonly told: Told
}

export type Forgotten =
  | { readonly kind: 'manifest'; readonly digest: string; readonly death: Death }
  | { readonly kind: 'tag'; readonly name: string; readonly tag: TagVersion }

/**
 * Returns what a returning region holds alive and its peer has forgotten, as the deaths that the returning region takes
 * back.
 */
export function forgottenBy(peer: Peer, returner: Repository): Forgotten[] {
  const forgotten: Forgotten[] = []
  for (const [digest, { alive, dead }] of returner.manifests) {
    if (isNever(alive.version) || isAtMost(alive.version, dead.version)) continue
    if (peer.repository.manifests.has(digest) || !wasForgotten(peer, alive)) continue
    forgotten.push({ kind: 'manifest', digest, death: { ...NO_DEATH, version: alive.version } })
  }
  for (const [name, { current }] of returner.tags) {
    if (!current.alive || peer.repository.tags.has(name) || !wasForgotten(peer, current)) continue
    forgotten.push({ kind: 'tag', name, tag: { ...current, alive: false } })
  }
  return forgotten
}

function wasForgotten(peer: Peer, write: Pick<Alive, 'version' | 'written'>): boolean {
  if (write.version.h > peer.prunedH || isAtMost(write.version, peer.repository.dead.version)) return false
  return wasTold(peer.told, write)
}

/** False only if the write certainly never came: its outbox id is above every id told of its epoch. */
function wasTold(told: Told, { version, written }: Pick<Alive, 'version' | 'written'>): boolean {
  return (told[version.origin] ?? []).some(({ epoch, id }) => epoch === written.epoch && written.id <= id)
}

/**
 * True for an event that a restored region numbers again, if its write came here before and was forgotten since. Such
 * an event is dropped. `loggedEpoch`: the epoch that numbers the event, later than the epoch that wrote it.
 */
export function isForgottenEvent(
  { told, prunedH }: Pick<Peer, 'told' | 'prunedH'>,
  write: Pick<Alive, 'version' | 'written'>,
  loggedEpoch: number,
): boolean {
  return write.written.epoch !== loggedEpoch && write.version.h <= prunedH && wasTold(told, write)
}

function isAtMost(version: Version, death: Version): boolean {
  return compareVersions(version, death) <= 0
}
