// Lost races, found from the registers alone and alike in every region.
//
// A tag's versions are a tree by `prev`: what each write overwrote. A version that nobody overwrote knowingly and that is
// not the current one lost a race, unless a greater version says the same (same digest and aliveness): then nobody lost
// anything. A death killed something unseen if the write's event lies behind what the deleting region had applied of
// the writer's log.

import {
  compareTagVersions,
  type Death,
  type EarlyVersion,
  type Events,
  isSameVersion,
  isSeen,
  type TagRegister,
  type TagVersion,
  type Written,
} from './registers.ts'
import { compareVersions, type Version } from './version.ts'

/**
 * The versions of a tag that lost a race. `prunedH`: history at most this old may be gone, so no version at most this old
 * opens a conflict.
 */
export function lostVersions({ current, history }: TagRegister, prunedH = 0n): TagVersion[] {
  const overwritten = new Set([...history.values()].map(({ prev }) => keyOf(prev)))
  const versions = [...history.values()]
  return versions.filter((version) => {
    if (version.version.h <= prunedH) return false
    if (overwritten.has(keyOf(version.version))) return false
    if (compareVersions(version.version, current.version) === 0 && version.digest === current.digest)
      return false
    return !versions.some(
      (other) =>
        compareTagVersions(other, version) > 0 &&
        other.digest === version.digest &&
        other.alive === version.alive,
    )
  })
}

/** What is known of whether a death killed a write that its author had not seen. `unknown`: the event has to arrive. */
export function killedUnseen(
  death: Death,
  write: EarlyVersion & { readonly events: Events; readonly written: Written },
): boolean | 'unknown' {
  if (compareVersions(write.version, death.version) > 0) return false
  if (death.early.some((early) => isSameVersion(early, write))) return false
  if (isSeen(death.seen, write.version.origin, write.events)) return false
  if (write.version.origin === death.version.origin) return !isOwnSeen(death, write.written)
  return write.events.length === 0 ? 'unknown' : true
}

/** A region has seen its own writes, numbered or not, unless a restore took them from it. */
export function isOwnSeen({ lineage }: Pick<Death, 'lineage'>, write: Written): boolean {
  return lineage.some(({ epoch, id }) => epoch === write.epoch && write.id <= id)
}

function keyOf({ h, origin }: Version): string {
  return `${h} ${origin}`
}
