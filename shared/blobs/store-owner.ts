// Who owns a blob store. One database owns a store, because its rows alone say which objects are needed: a sweep by any
// other database would find only orphans and erase everything.
//
// The owner is a marker object beside the blobs: the region's name, the database's identity, the format's version. It is
// written once, at the first start, and compared at each start and before each sweep. `judgeOwner` decides, without
// I/O; `findStoreFacts` gathers what it decides on; `claimStore` does both and writes the marker where that is right.
//
// A store without a marker is claimed when it is empty, or when rows name some of its objects (a store from before
// markers). Everything else is refused with a sentence that names the command: objects that no row names, rows whose
// objects are all gone (a volume that is not mounted, the wrong bucket), another owner. Two starters that meet at a
// store without a marker: one writes it, the other reads it back and is refused. Files, Google Cloud Storage, Azure,
// Amazon S3, MinIO and every S3 server that knows `If-None-Match: *` guarantee that; on one that ignores the header both
// may write within the same instant, and the check before each sweep finds out before anything is removed.

import { OperatorError } from '#shared/errors.ts'
import type { BlobStore, StoreOwner } from './blob-store.ts'

/** Of the marker. A later format is refused: it may mean that more may own the store. */
const FORMAT = 1
/** Objects looked at to find out whether the database knows the store. */
export const SAMPLE_MAX = 1_000

/** The store belongs to somebody else, or nobody knows to whom: one sentence for the operator. */
export class StoreOwnerError extends OperatorError {
  override readonly name = 'StoreOwnerError'
}

export interface Marker extends StoreOwner {
  /** The store was empty when this database claimed it: whatever is in it came from here. */
  readonly founded: boolean
}

/** What the database has to say of a store. */
export interface KnownRows {
  /** True when any row names the store. */
  any(): Promise<boolean>
  /** Of the keys (at most 1,000), those that a row or an open session names. */
  among(keys: readonly string[]): Promise<ReadonlySet<string>>
}

export interface StoreFacts {
  /** undefined: there is no marker. */
  readonly marker: string | undefined
  /** Objects in the sample, at most 1,000. 0 means that the store is empty. */
  readonly sampled: number
  /** Of those, how many a row names. */
  readonly known: number
  /** True when the database has rows that name the store. */
  readonly rows: boolean
}

export type OwnerVerdict =
  | { readonly kind: 'owned' }
  /** No marker, and nothing speaks against writing one. */
  | { readonly kind: 'claim' }
  | { readonly kind: 'refused'; readonly reason: string }

/** Pure: the rules that the header tells. */
export function judgeOwner(facts: StoreFacts, mine: StoreOwner): OwnerVerdict {
  if (facts.marker !== undefined) {
    const owner = parseMarker(facts.marker)
    if (owner === undefined) return refused('has a marker that this release cannot read')
    if (owner.region === mine.region && owner.database === mine.database) return { kind: 'owned' }
    if (owner.region !== mine.region) return refused(`belongs to the region "${owner.region}"`)
    return refused(`belongs to another database of the region "${owner.region}" (${owner.database})`)
  }
  if (facts.known > 0) return { kind: 'claim' }
  if (facts.sampled > 0) return refused('holds objects, and this database knows none of them')
  if (facts.rows) return refused('is empty, and this database names objects in it')
  return { kind: 'claim' }
}

function refused(reason: string): OwnerVerdict {
  return { kind: 'refused', reason }
}

/**
 * Looks for the marker before the objects and again after them: another node of this region may be starting, and what it
 * writes (a probe, a blob) comes after the marker that it writes first.
 */
export async function findStoreFacts(store: BlobStore, rows: KnownRows): Promise<StoreFacts> {
  const before = await store.readMarker()
  if (before !== undefined) return { marker: before, sampled: 0, known: 0, rows: false }
  const sample = await store.list('', SAMPLE_MAX)
  const known = sample.length === 0 ? new Set() : await rows.among(sample.map(({ key }) => key))
  const any = await rows.any()
  const marker = await store.readMarker()
  if (marker !== undefined) return { marker, sampled: 0, known: 0, rows: false }
  return { marker, sampled: sample.length, known: known.size, rows: any }
}

/**
 * Makes sure that the store is this database's; writes the marker where there is none and that is right.
 * @throws StoreOwnerError when it is not, or nobody can tell; StoreError when the store cannot be asked
 */
export async function claimStore(store: BlobStore, mine: StoreOwner, rows: KnownRows): Promise<Marker> {
  const facts = await findStoreFacts(store, rows)
  const verdict = judgeOwner(facts, mine)
  if (verdict.kind === 'refused') throw ownerError(store, verdict.reason)
  if (verdict.kind === 'claim') {
    const founded = facts.sampled === 0
    await store.writeMarker(markerOf({ ...mine, founded }), { replace: false })
  }
  return requireOwner(store, mine)
}

/**
 * Reads the marker again.
 * @throws StoreOwnerError when it is gone or somebody else's; StoreError when the store cannot be asked
 */
export async function requireOwner(store: BlobStore, mine: StoreOwner): Promise<Marker> {
  const marker = await store.readMarker()
  if (marker === undefined) throw ownerError(store, 'has lost its marker')
  const verdict = judgeOwner({ marker, sampled: 0, known: 0, rows: false }, mine)
  if (verdict.kind === 'refused') throw ownerError(store, verdict.reason)
  return parseMarker(marker) ?? { ...mine, founded: false }
}

/** Makes the store this database's whoever owned it before. */
export async function takeStore(store: BlobStore, mine: StoreOwner): Promise<void> {
  await store.writeMarker(markerOf({ ...mine, founded: false }), { replace: true })
  await requireOwner(store, mine)
}

function ownerError(store: BlobStore, reason: string): StoreOwnerError {
  return new StoreOwnerError(
    `${store.place[0]?.toUpperCase()}${store.place.slice(1)} ${reason}: correct the database or the store that is configured, or take the store over on purpose with \`npm start -- adopt-store\`.`,
  )
}

export function markerOf({ region, database, founded }: Marker): string {
  return `${JSON.stringify({ format: FORMAT, region, database, founded })}\n`
}

/** undefined: it is not a marker, or one of a later format. */
export function parseMarker(text: string): Marker | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  const { format, region, database, founded } = (value ?? {}) as Record<string, unknown>
  if (format !== FORMAT || typeof region !== 'string' || typeof database !== 'string') return undefined
  return { region, database, founded: founded === true }
}
