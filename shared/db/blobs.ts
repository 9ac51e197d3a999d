// Blobs: the commit that maps a digest to bytes, and the link that puts a blob into a repository.
//
// The commit of an upload is one statement in the lock order (registers.ts): repository -> the session's row, taken by
// compare-and-set -> membership -> blob -> event. When two uploads of one digest race the first key stays; the second's
// bytes are surplus and the caller drops them. The lease keeps the garbage collector away from what a client was just
// told exists. A mount is the same without a session: the blob is looked at by the snapshot, and if it went away before
// it was locked, the statement begins again.

import type { StoredObject } from '#shared/blobs/blob-store.ts'
import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { type Provenance, provenanceParameters } from './provenance.ts'
import { ALIVE_AGAIN, EPOCH, LIVE_REPOSITORY, type WritePosition } from './registers.ts'
import { maybe, one, type Queryable, statement } from './statement.ts'
import type { Upload } from './uploads.ts'

/** How long bytes that were just pushed or mounted are kept without a manifest naming them. */
const LEASE_SECONDS = 24 * 3600

export const BLOB_MEDIA_TYPE = 'application/octet-stream'

/** The link's register, of each digest that the query `wanted` brings together with `repo`. */
function linkedFrom(wanted: string): string {
  return `
    insert into membership as m (repository_id, kind, digest, media_type, alive_h, alive_origin)
    select repo.id, 'blob', wanted.digest, '${BLOB_MEDIA_TYPE}', greatest(hlc_now(), repo.dead_h + 1), :origin
    from repo cross join (${wanted}) as wanted
    on conflict (repository_id, kind, digest) do update set ${ALIVE_AGAIN}
    returning m.digest`
}

/** One event, when both the link and the bytes are written. */
const EVENT = `
    insert into outbox (repository, shard, type, subject, payload, actor, request, traceparent, instance)
    select :repository, :shard, :event_type, :repository || '@' || bytes.digest,
      jsonb_build_object('repository', :repository::text, 'digest', bytes.digest, 'size', bytes.size)
        || :facts::jsonb,
      :actor, :request::jsonb, :traceparent, :instance
    from bytes
    returning id`

const commit = statement<{
  repository: boolean
  key: string | null
  outbox_id: number | null
  epoch: number
}>(
  'commit-blob',
  `with repo as (${LIVE_REPOSITORY}),
   taken as (
     delete from upload using repo
     where upload.id = :upload_id::uuid and upload.repository = :repository
       and upload.attempt = :attempt and upload."offset" = :offset
     returning upload.id
   ),
   member as (${linkedFrom(`
       select :digest as digest where :upload_id::uuid is null or exists (select from taken)`)}),
   bytes as (
     insert into blob as b (digest, store, key, size, lease_until)
     select digest, :store, :key, :size, clock_timestamp() + make_interval(secs => ${LEASE_SECONDS})
     from member
     on conflict (digest) do update
       set store = case when b.state = 'ready' then b.store else excluded.store end,
         key = case when b.state = 'ready' then b.key else excluded.key end,
         state = 'ready',
         lease_until = greatest(b.lease_until, excluded.lease_until)
     returning b.digest, b.key, b.size
   ),
   event as (${EVENT})
   select exists (select from repo) as repository,
     (select key from bytes) as key,
     (select max(id) from event) as outbox_id,
     ${EPOCH} as epoch`,
)

export type CommitOutcome =
  | { readonly kind: 'committed'; readonly key: string; readonly position: WritePosition }
  | { readonly kind: 'repository-missing' }
  | { readonly kind: 'upload-lost' }

/**
 * Makes the object the digest's blob (or keeps the one that is there) and links it to the repository. With an upload,
 * only if its row is still what the caller saw. The digest may be in another algorithm than the one the object's
 * bytes were first hashed with; the caller has verified it.
 */
export async function commitBlob(
  db: Queryable,
  options: {
    repository: RepositoryName
    shard: number
    origin: string
    store: string
    object: StoredObject
    upload: Upload | null
    provenance: Provenance
  },
): Promise<CommitOutcome> {
  const { upload, object, provenance, ...rest } = options
  const row = await one(db, commit, {
    ...rest,
    ...object,
    upload_id: upload?.id ?? null,
    attempt: upload?.attempt ?? 0,
    offset: upload?.session.size ?? 0,
    event_type: 'dev.portolan.registry.blob.uploaded.v1',
    facts: '{}',
    ...provenanceParameters(provenance),
  })
  if (!row.repository) return { kind: 'repository-missing' }
  if (row.key === null || row.outbox_id === null) return { kind: 'upload-lost' }
  return { kind: 'committed', key: row.key, position: { epoch: row.epoch, outboxId: row.outbox_id } }
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
       and (link.alive_h, link.alive_origin) > (link.dead_h, link.dead_origin)
       and (link.alive_h, link.alive_origin) > (home.dead_h, home.dead_origin)
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
   where case
     when (select count(*) from member) = (select count(*) from bytes) then true
     else begin_again('the blob went away while it was mounted') end`,
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

const place = statement<{ store: string; key: string }>(
  'blob-place',
  `select store, key from blob where digest = :digest and state = 'ready'`,
)

/** Where a blob's bytes are now, whoever holds it. */
export async function blobPlace(
  db: Queryable,
  digest: Digest,
): Promise<{ store: string; key: string } | undefined> {
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
   where store <> :store and state = 'ready' and digest > :after order by digest limit :limit`,
)

/** Blobs that are in other stores than this one, after a digest, a page at a time. */
export async function blobsElsewhere(
  db: Queryable,
  options: { store: string; after: string; limit: number },
): Promise<BlobRow[]> {
  return db.rows(elsewhere, options)
}

const sumElsewhere = statement<{ blobs: number; bytes: number }>(
  'sum-blobs-elsewhere',
  `select count(*) as blobs, coalesce(sum(size), 0)::bigint as bytes from blob
   where store <> :store and state = 'ready'`,
)

export async function sumBlobsElsewhere(
  db: Queryable,
  store: string,
): Promise<{ blobs: number; bytes: number }> {
  return one(db, sumElsewhere, { store })
}

const relocate = statement<{ moved: number }>(
  'relocate-blob',
  `update blob set store = :store, key = :key
   where digest = :digest and store = :old_store and key = :old_key and state = 'ready'
   returning 1 as moved`,
)

/** Points the row to another object with the same bytes; false when it no longer says what the caller saw. */
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

/** Of the keys given, those that a blob row names, in any state. */
export async function knownKeys(
  db: Queryable,
  options: { store: string; keys: readonly string[] },
): Promise<Set<string>> {
  return new Set((await db.rows(known, options)).map(({ key }) => key))
}
