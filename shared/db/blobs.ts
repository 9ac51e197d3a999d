// Blobs: which object a digest names, and the link that puts a blob into a repository.
//
// A new blob is created by an upload's commit (commit-blob.ts). The lease protects from the garbage collector what a
// client was just told exists. A mount links an existing blob. The blob is judged by the snapshot, and if it went away
// before it was locked, the statement begins again.
//
// A row in the state 'damaged' names an object that was found missing or wrong. Queries for a 'ready' blob do not find
// it, so it is not served, mounted or accepted in a manifest, and a commit of its digest replaces its key. Every change
// of a row's key or state names the (store, key) it was decided for. A decision about bytes that the row no longer
// names therefore changes nothing.

import type { StoredObject } from '#shared/blobs/blob-store.ts'
import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { type Provenance, provenanceParameters } from './provenance.ts'
import { ALIVE_AGAIN, EPOCH, LIVE_REPOSITORY, linkShows, sameCount, type WritePosition } from './registers.ts'
import { maybe, one, type Queryable, statement } from './statement.ts'

/** How long bytes that were just pushed or mounted are kept without a manifest that names them. */
export const LEASE_SECONDS = 24 * 3600

export const BLOB_MEDIA_TYPE = 'application/octet-stream'

/** Returns the link's register for each digest that the query `wanted` joins with `repo`. */
export function linkedFrom(wanted: string): string {
  return `
    insert into membership as m (repository_id, kind, digest, media_type, alive_h, alive_origin)
    select repo.id, 'blob', wanted.digest, '${BLOB_MEDIA_TYPE}', greatest(hlc_now(), repo.dead_h + 1), :origin
    from repo cross join (${wanted}) as wanted
    on conflict (repository_id, kind, digest) do update set ${ALIVE_AGAIN}
    returning m.digest`
}

/** Writes one event, after both the link and the bytes are written. */
export const EVENT = `
    insert into outbox (repository, shard, type, subject, payload, actor, request, traceparent, instance)
    select :repository, :shard, :event_type, :repository || '@' || bytes.digest,
      jsonb_build_object('repository', :repository::text, 'digest', bytes.digest, 'size', bytes.size)
        || :facts::jsonb,
      :actor, :request::jsonb, :traceparent, :instance
    from bytes
    returning id`

export interface BlobPlace {
  readonly store: string
  readonly key: string
}

const mount = statement<{ repository: boolean; outbox_id: number | null; epoch: number }>(
  'mount-blob',
  `with repo as (${LIVE_REPOSITORY}),
   held as (
     select b.digest
     from repository as home
     join membership as link on link.repository_id = home.id and link.kind = 'blob' and link.digest = :digest
     join blob as b on b.digest = link.digest and b.state = 'ready'
     where home.name = :from
       and ${linkShows('link', 'home')}
   ),
   member as (${linkedFrom('select digest from held')}),
   bytes as (
     update blob as b
     set lease_until = greatest(b.lease_until, clock_timestamp() + make_interval(secs => ${LEASE_SECONDS}))
     from member
     where b.digest = member.digest and b.state = 'ready'
     returning b.digest, b.size
   ),
   event as (${EVENT})
   select exists (select from repo) as repository, (select max(id) from event) as outbox_id, ${EPOCH} as epoch
   where ${sameCount('bytes', 'member', 'the blob went away while it was mounted')}`,
)

export type MountOutcome =
  | { readonly kind: 'mounted'; readonly position: WritePosition }
  | { readonly kind: 'repository-missing' }
  | { readonly kind: 'unknown' }

/** Links a blob of the repository `from` to another. 'unknown': `from` does not hold it. */
export async function mountBlob(
  db: Queryable,
  options: {
    repository: RepositoryName
    shard: number
    origin: string
    from: RepositoryName
    digest: Digest
    provenance: Provenance
  },
): Promise<MountOutcome> {
  const { provenance, ...rest } = options
  const row = await one(db, mount, {
    ...rest,
    event_type: 'dev.portolan.registry.blob.mounted.v1',
    facts: JSON.stringify({ from: options.from }),
    ...provenanceParameters(provenance),
  })
  if (row.outbox_id !== null) {
    return { kind: 'mounted', position: { epoch: row.epoch, outboxId: row.outbox_id } }
  }
  return row.repository ? { kind: 'unknown' } : { kind: 'repository-missing' }
}

const mark = statement<{ marked: number }>(
  'mark-blob-damaged',
  `update blob set state = 'damaged', damage = :damage, damaged_at = clock_timestamp()
   where digest = :digest and store = :store and key = :key and state = 'ready'
   returning 1 as marked`,
)

/** The damage of an object: it is missing, or it has another size or other bytes. */
export type Damage = 'missing' | 'size' | 'digest'

/**
 * Marks the blob if its row still names this object. Returns false if it does not, or if the blob is already marked.
 */
export async function markBlobDamaged(
  db: Queryable,
  options: BlobPlace & { digest: Digest; damage: Damage },
): Promise<boolean> {
  const { digest, store, key, damage } = options
  return (await maybe(db, mark, { digest, store, key, damage })) !== undefined
}

const replace = statement<{ replaced: number }>(
  'replace-blob',
  `update blob set store = :store, key = :key, size = :size, state = 'ready'
   where digest = :digest and store = :old_store and key = :old_key and state in ('ready', 'damaged')
   returning 1 as replaced`,
)

/** Changes the row to another object with the digest's bytes. Returns false if the row no longer names `from`. */
export async function replaceBlob(
  db: Queryable,
  options: { from: BlobPlace; store: string; object: StoredObject },
): Promise<boolean> {
  const { from, store, object } = options
  const row = await maybe(db, replace, { ...object, store, old_store: from.store, old_key: from.key })
  return row !== undefined
}

const heal = statement<{ healed: number }>(
  'heal-blob',
  `update blob set state = 'ready'
   where digest = :digest and store = :store and key = :key and state = 'damaged'
   returning 1 as healed`,
)

/** Removes the mark if the row still names this object. Returns false if it does not. */
export async function unmarkBlob(db: Queryable, options: BlobPlace & { digest: Digest }): Promise<boolean> {
  const { digest, store, key } = options
  return (await maybe(db, heal, { digest, store, key })) !== undefined
}

const page = statement<BlobRow>(
  'blobs-after',
  `select digest, store, key, size from blob
   where state = 'ready' and digest > :after order by digest limit :limit`,
)

const markedPage = statement<BlobRow>(
  'damaged-blobs-after',
  `select digest, store, key, size from blob
   where state = 'damaged' and digest > :after order by digest limit :limit`,
)

/** Returns blobs after a digest, in the order of digests, for the scrub. */
export async function blobsAfter(
  db: Queryable,
  options: { state: 'ready' | 'damaged'; after: string; limit: number },
): Promise<BlobRow[]> {
  const { state, after, limit } = options
  return db.rows(state === 'ready' ? page : markedPage, { after, limit })
}

const countMarked = statement<{ damaged: number }>(
  'count-blobs-damaged',
  `select count(*) as damaged from blob where state = 'damaged'`,
)

/** Counts the blobs that are marked now, with an index that holds nothing else. */
export async function countDamagedBlobs(db: Queryable): Promise<number> {
  return (await one(db, countMarked)).damaged
}

const place = statement<BlobPlace>(
  'blob-place',
  `select store, key from blob where digest = :digest and state = 'ready'`,
)

/**
 * Returns where a blob's bytes are now, whichever repository holds it. Returns undefined also while the blob is
 * damaged.
 */
export async function blobPlace(db: Queryable, digest: Digest): Promise<BlobPlace | undefined> {
  return maybe(db, place, { digest })
}

export interface BlobRow {
  readonly digest: Digest
  readonly store: string
  readonly key: string
  readonly size: number
}

const elsewhere = statement<BlobRow>(
  'blobs-elsewhere',
  `select digest, store, key, size from blob
   where store <> all (:stores::text[]) and state = 'ready' and digest > :after order by digest limit :limit`,
)

/** Returns a page of blobs after a digest that are in other stores than these. */
export async function blobsElsewhere(
  db: Queryable,
  options: { stores: readonly string[]; after: string; limit: number },
): Promise<BlobRow[]> {
  return db.rows(elsewhere, options)
}

const sumElsewhere = statement<{ blobs: number; bytes: number }>(
  'sum-blobs-elsewhere',
  `select count(*) as blobs, coalesce(sum(size), 0)::bigint as bytes from blob
   where store <> all (:stores::text[]) and state = 'ready'`,
)

export async function sumBlobsElsewhere(
  db: Queryable,
  stores: readonly string[],
): Promise<{ blobs: number; bytes: number }> {
  return one(db, sumElsewhere, { stores })
}

const relocate = statement<{ moved: number }>(
  'relocate-blob',
  `update blob set store = :store, key = :key
   where digest = :digest and store = :old_store and key = :old_key and state = 'ready'
   returning 1 as moved`,
)

/** Changes the row to another object with the same bytes. Returns false if the row is no longer what the caller saw. */
export async function relocateBlob(
  db: Queryable,
  options: { from: BlobRow; store: string; key: string },
): Promise<boolean> {
  const { from, store, key } = options
  const parameters = { digest: from.digest, old_store: from.store, old_key: from.key, store, key }
  return (await maybe(db, relocate, parameters)) !== undefined
}

const known = statement<{ key: string }>(
  'known-keys',
  `select key from blob where store = :store and key = any (:keys::text[])`,
)

/** Returns those of the given keys that a blob row names, in any state. */
export async function knownKeys(
  db: Queryable,
  options: { store: string; keys: readonly string[] },
): Promise<Set<string>> {
  return new Set((await db.rows(known, options)).map(({ key }) => key))
}
