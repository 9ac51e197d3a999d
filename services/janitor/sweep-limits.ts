// Limits how much one sweep may remove. A healthy store has few orphans, left by crashed processes and disconnected
// clients. A large number means that the database does not belong to the store, or that it lost rows. In that case
// nothing is removed until an operator has checked.
//
// Pure. The sweep counts a whole pass over the store before it checks these limits.

/** A sweep may remove at most a tenth of the objects. */
const SHARE_MAX = 0.1
/** Always allowed: in a small store, a tenth is less than one interrupted push leaves behind. */
const OBJECTS_ALWAYS = 10

/** The result of one pass over the whole store. */
export interface Survey {
  /** Objects in the store, orphans included. */
  readonly objects: number
  /** How many of them a blob row or an upload session references. */
  readonly named: number
  /** How many of them are old and not referenced. */
  readonly orphans: number
  readonly orphanBytes: number
}

export interface Known {
  /** The largest number of referenced objects that any sweep has counted. */
  readonly seenMax: number
  /** The store was empty when this database claimed it. */
  readonly founded: boolean
}

/** Returns why nothing may be removed, or undefined if the sweep may run. */
export function sweepBlockedBy(
  { objects, orphans }: Survey,
  { seenMax, founded }: Known,
): 'share' | 'unknown' | undefined {
  // A database that never knew as many objects as it would remove did not write them. A store that was empty when
  // this database claimed it is different: a new registry whose first pushes failed has nothing but orphans.
  if (orphans > Math.max(seenMax, founded ? OBJECTS_ALWAYS : 0)) return 'unknown'
  return orphans > Math.max(OBJECTS_ALWAYS, objects * SHARE_MAX) ? 'share' : undefined
}
