// Who owns a blob store. One database owns a store, because only its rows say which objects are needed. A sweep by any
// other database would find only orphans and delete everything.
//
// The owner is identified by a marker object beside the blobs: the name of the region, the identity of the database,
// and the version of the format. It is written once, at the first start, and compared at each start and before each
// sweep. `judgeOwner` decides, without I/O. `findStoreFacts` gathers the facts for the decision. `claimStore` does both
// and writes the marker if allowed.
//
// A store without a marker is claimed if it is empty, or if rows name some of its objects (a store from before
// markers). Everything else is refused with a sentence that names the command: objects that no row names, rows whose
// objects are all gone (a volume that is not mounted, the wrong bucket), another owner. If two processes start at a
// store without a marker, one writes it, and the other reads it back and is refused. Files, Google Cloud Storage,
// Azure, Amazon S3, MinIO and every S3 server that supports `If-None-Match: *` guarantee this. On a server that ignores
// the header, both may write within the same instant. The check before each sweep detects this before anything is
// removed.

import { OperatorError } from '#shared/errors.ts'
import type { BlobStore, StoreOwner } from './blob-store.ts'

/** Version of the marker. A later version is refused, because it may allow more than one owner. */
const FORMAT = 1
/** Number of objects sampled to find out whether the database knows the store. */
export const SAMPLE_MAX = 1_000

/** The store belongs to another owner, or its owner is unknown. The message is one sentence for the operator. */
export class StoreOwnerError extends OperatorError {
  override readonly name = 'StoreOwnerError'
}

export interface Marker extends StoreOwner {
  /** True if the store was empty when this database claimed it, so that all its content came from here. */
  readonly founded: boolean
}

/** What the database knows about a store. */
export interface KnownRows {
  /** True if any row names the store. */
  any(): Promise<boolean>
  /** The subset of the keys (at most 1,000) that a row or an open session names. */
  among(keys: readonly string[]): Promise<ReadonlySet<string>>
}

export interface StoreFacts {
  /** undefined: there is no marker. */
  readonly marker: string | undefined
  /** Number of objects in the sample, at most 1,000. 0 means that the store is empty. */
  readonly sampled: number
  /** Number of objects in the sample that a row names. */
  readonly known: number
  /** True if the database has rows that name the store. */
  readonly rows: boolean
}

export type OwnerVerdict =
  | { readonly kind: 'owned' }
  /** There is no marker, and nothing prevents writing one. */
  | { readonly kind: 'claim' }
  | { readonly kind: 'refused'; readonly reason: string }

/** Pure: implements the rules in the header. */
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
 * Looks for the marker before listing the objects and again afterwards. Another node of this region may be starting,
 * and it writes the marker before anything else (a probe, a blob).
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
 * Makes sure that the store belongs to this database. Writes the marker if there is none and the rules allow it.
 * @throws StoreOwnerError if it belongs to another owner or cannot be decided; StoreError if the store cannot be
 * reached
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
 * @throws StoreOwnerError if it is gone or names another owner; StoreError if the store cannot be reached
 */
export async function requireOwner(store: BlobStore, mine: StoreOwner): Promise<Marker> {
  const marker = await store.readMarker()
  if (marker === undefined) throw ownerError(store, 'has lost its marker')
  const verdict = judgeOwner({ marker, sampled: 0, known: 0, rows: false }, mine)
  if (verdict.kind === 'refused') throw ownerError(store, verdict.reason)
  return parseMarker(marker) ?? { ...mine, founded: false }
}

/** Makes this database the owner of the store, whoever owned it before. */
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

/** undefined: the text is not a marker, or its version is later than ours. */
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
