// Finds lost races from the registers alone. Every region finds the same ones.
//
// The versions of a tag form a tree by `prev`, which names the version that each write overwrote. A version lost a race
// if it is not the current version and no version names it as its predecessor. It did not lose if a greater version
// says the same (same digest and aliveness), because then nothing was lost. A death killed something unseen if the
// write's event lies behind what the deleting region had applied of the writer's log.

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
 * Returns the versions of a tag that lost a race. `prunedH`: history up to this h may have been removed, so a version
 * at or below it opens no conflict.
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

/** Tells whether a death killed a write that its author had not seen. `unknown`: the event has not arrived yet. */
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

/** A region has seen its own writes, numbered or not, except those that a restore removed. */
export function isOwnSeen({ lineage }: Pick<Death, 'lineage'>, write: Written): boolean {
  return lineage.some(({ epoch, id }) => epoch === write.epoch && write.id <= id)
}

function keyOf({ h, origin }: Version): string {
  return `${h} ${origin}`
}
