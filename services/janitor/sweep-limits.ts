// How much one sweep may remove. A healthy store has few orphans: a process died, a client went away. Very many mean
// that the database is not the one that knows the store, or that it lost rows. Then nothing is removed until somebody
// has looked.
//
// Pure. The sweep counts a whole pass over the store before it asks.

/** A sweep may remove a tenth of the objects. */
const SHARE_MAX = 0.1
/** In a small store a tenth is less than one interrupted push leaves behind. */
const OBJECTS_ALWAYS = 10

/** What one pass over the whole store found. */
export interface Survey {
  /** Objects in the store, orphans included. */
  readonly objects: number
  /** Of those, how many a blob row or a session names. */
  readonly named: number
  /** Of those, how many are old and needed by nobody. */
  readonly orphans: number
  readonly orphanBytes: number
}

export interface Known {
  /** The most named objects that any sweep has counted. */
  readonly seenMax: number
  /** The store was empty when this database claimed it. */
  readonly founded: boolean
}

/** Why nothing may be removed; undefined: it may. */
export function sweepBlockedBy(
  { objects, orphans }: Survey,
  { seenMax, founded }: Known,
): 'share' | 'unknown' | undefined {
  // A database that never knew as many objects as it would remove did not write them. In a store that began empty it
  // did: a new registry whose first pushes broke off has orphans and nothing else.
  if (orphans > Math.max(seenMax, founded ? OBJECTS_ALWAYS : 0)) return 'unknown'
  return orphans > Math.max(OBJECTS_ALWAYS, objects * SHARE_MAX) ? 'share' : undefined
}
