// Upload sessions. The row is the whole state of a session, so any node can continue it. Each request body is an
// attempt that joins by compare-and-set on (id, offset, attempt). The second of two concurrent attempts finds the row
// changed and has lost.
//
// A session has no row before its first byte: its Location is signed, and the first body creates the row. While a
// session is small, its bytes are in the row, `store` is the store of small blobs, and `parts` is empty. A session that
// ended leaves a row without a repository until its signed Location expires. No query finds this row, and it prevents
// the session from being created again.
//
// The table is unlogged. After a crash of the database sessions are unknown, and clients begin a layer again.

import type { StoredSession } from '#shared/blobs/blob-store.ts'
import type { Digest, DigestAlgorithm } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { maybe, one, type Queryable, statement } from './statement.ts'

export interface Upload {
  readonly id: string
  readonly repository: RepositoryName
  readonly store: string
  readonly algorithm: DigestAlgorithm
  readonly attempt: number
  readonly session: StoredSession
  /** All of a small session's bytes. null: they are in the store. */
  readonly bytes: Buffer | null
}

/** A session that has no row yet, as its signed Location describes it. */
export interface UnbornUpload {
  readonly id: string
  readonly repository: RepositoryName
  readonly algorithm: DigestAlgorithm
  /** The id of the key that signed. */
  readonly keyId: string
  /** By the database's clock, in milliseconds. */
  readonly signedUntilMs: number
}

interface UploadRow {
  id: string
  repository: RepositoryName
  store: string
  algorithm: DigestAlgorithm
  attempt: number
  offset: number
  parts: unknown[]
  digest_so_far: Digest | null
  bytes: Buffer | null
}

/**
 * True while the signed Location may create its session: the key is still the region's, and the Location has not
 * expired.
 */
const SIGNED = `(exists (select from upload_key where id = :key_id::uuid)
  and to_timestamp(:signed_until_ms::float8 / 1000) > clock_timestamp())`

const insert = statement<{ made: boolean; signed: boolean; room: boolean }>(
  'make-upload',
  `with allowed as (
     select ${SIGNED} as signed,
       (select count(*) from (select from upload where repository = :repository limit :open_max) as open) < :open_max as room
   ),
   made as (
     insert into upload
       (id, repository, region, store, algorithm, attempt, "offset", bytes, digest_so_far, actor, signed_until, expires_at)
     select :id, :repository, :region, :store, :algorithm, case when :bytes::bytea is null then 0 else 1 end,
       coalesce(octet_length(:bytes::bytea), 0), :bytes::bytea, :digest, :actor,
       to_timestamp(:signed_until_ms::float8 / 1000), clock_timestamp() + make_interval(secs => :ttl_seconds)
     from allowed where signed and room
     on conflict (id) do nothing
     returning id
   )
   select exists (select from made) as made, signed, room from allowed`,
)

/**
 * Creates a session's row, with the bytes of a small first body. 'there': it has a row already, or has ended.
 * 'unknown': its Location has expired or was signed before the database crashed. 'full': the repository has `openMax`
 * sessions.
 */
export async function makeUpload(
  db: Queryable,
  options: {
    unborn: UnbornUpload
    region: string
    store: string
    /** The first body and its digest. null: its bytes go to the store. */
    small: { bytes: Buffer; digest: Digest } | null
    actor: string
    ttlSeconds: number
    openMax: number
  },
): Promise<'made' | 'there' | 'unknown' | 'full'> {
  const { unborn, region, store, small, actor, ttlSeconds, openMax } = options
  const row = await one(db, insert, {
    ...unbornParameters(unborn),
    region,
    store,
    algorithm: unborn.algorithm,
    bytes: small?.bytes ?? null,
    digest: small?.digest ?? null,
    actor,
    ttl_seconds: ttlSeconds,
    open_max: openMax,
  })
  if (row.made) return 'made'
  if (!row.signed) return 'unknown'
  return row.room ? 'there' : 'full'
}

/** Parameters for `takenUnborn`. */
export function unbornParameters({ id, repository, keyId, signedUntilMs }: UnbornUpload) {
  return { id, repository, key_id: keyId, signed_until_ms: signedUntilMs }
}

const signed = statement<{ open: boolean }>(
  'signed-upload-is-open',
  `select ${SIGNED} and not exists (select from upload where id = :id) as open`,
)

/** True while a session that has no row yet may still be created. */
export async function unbornIsOpen(db: Queryable, unborn: UnbornUpload): Promise<boolean> {
  return (await one(db, signed, unbornParameters(unborn))).open
}

const UPLOAD_COLUMNS = `id, repository, store, algorithm, attempt, "offset", parts, digest_so_far, bytes`

const find = statement<UploadRow>(
  'find-upload',
  `select ${UPLOAD_COLUMNS} from upload
   where id = :id and repository = :repository and expires_at > clock_timestamp()`,
)

/** Returns the session, if it belongs to this repository and has not expired or ended. */
export async function findUpload(
  db: Queryable,
  options: { id: string; repository: RepositoryName },
): Promise<Upload | undefined> {
  const row = await maybe(db, find, options)
  return row && fromRow(row)
}

const join = statement<{ attempt: number }>(
  'join-upload',
  `update upload
   set attempt = attempt + 1, store = :store, "offset" = :size, parts = :parts::jsonb, bytes = :bytes,
     digest_so_far = :digest, expires_at = clock_timestamp() + make_interval(secs => :ttl_seconds)
   where id = :id and repository = :repository and attempt = :attempt and "offset" = :offset
   returning attempt`,
)

/**
 * Records the session with an attempt appended, in the store that holds its bytes now. Returns false if another attempt
 * came first. `bytes`: all of them while the session is small.
 */
export async function joinUpload(
  db: Queryable,
  options: {
    upload: Upload
    store: string
    session: StoredSession
    bytes: Buffer | null
    ttlSeconds: number
  },
): Promise<boolean> {
  const { upload, store, session, bytes, ttlSeconds } = options
  const row = await maybe(db, join, {
    ...casParameters(upload),
    store,
    size: session.size,
    parts: JSON.stringify(session.parts),
    bytes,
    digest: session.digest,
    ttl_seconds: ttlSeconds,
  })
  return row !== undefined
}

/** Parameters for a statement that changes a session only if it is still what its caller saw. */
export function casParameters({ id, repository, attempt, session }: Upload) {
  return { id, repository, attempt, offset: session.size }
}

/**
 * Two stages of a statement. `taken` takes the session's row if it meets the condition. `ended` leaves the row that
 * prevents the signed Location from creating the session again.
 */
export function takenUpload(condition: string): string {
  return `taken as (
     delete from upload where id = :id::uuid and repository = :repository and ${condition}
     returning ${UPLOAD_COLUMNS}, region, actor, signed_until
   ),
   ended as (
     insert into upload (id, repository, region, store, algorithm, actor, signed_until, expires_at)
     select id, '', region, '', algorithm, actor, signed_until, signed_until from taken
     where signed_until > clock_timestamp()
   )`
}

/** The same for a session that has no row yet: inserting the row of its end takes it. */
export function takenUnborn(condition: string): string {
  return `taken as (
     insert into upload (id, repository, region, store, algorithm, actor, signed_until, expires_at)
     select :id, '', '', '', 'sha256', '', to_timestamp(:signed_until_ms::float8 / 1000),
       to_timestamp(:signed_until_ms::float8 / 1000)
     where ${SIGNED} and ${condition}
     on conflict (id) do nothing
     returning id
   )`
}

/** The compare-and-set of `casParameters`, as the condition of `takenUpload`. */
export const AS_SEEN = `attempt = :attempt and "offset" = :offset`

const remove = statement<UploadRow>(
  'cancel-upload',
  `with ${takenUpload('true')} select ${UPLOAD_COLUMNS} from taken`,
)

/** Ends a session and returns what it was, so that its bytes can be dropped. */
export async function cancelUpload(
  db: Queryable,
  options: { id: string; repository: RepositoryName },
): Promise<Upload | undefined> {
  const row = await maybe(db, remove, options)
  return row && fromRow(row)
}

const end = statement<{ ended: number }>(
  'end-upload',
  `with ${takenUpload(AS_SEEN)} select 1 as ended from taken`,
)

/** Ends a session that is still what the caller saw. Returns false if another body joined it, or it is gone. */
export async function endUpload(db: Queryable, upload: Upload): Promise<boolean> {
  return (await maybe(db, end, casParameters(upload))) !== undefined
}

const endUnborn = statement<{ ended: number }>(
  'end-unborn-upload',
  `with ${takenUnborn('true')} select 1 as ended from taken`,
)

/** Ends a session before it has a row. Returns false if it has one, has ended, or its Location is no longer valid. */
export async function endUnbornUpload(db: Queryable, unborn: UnbornUpload): Promise<boolean> {
  return (await maybe(db, endUnborn, unbornParameters(unborn))) !== undefined
}

const expired = statement<UploadRow>(
  'take-expired-uploads',
  `delete from upload where id in (
     select id from upload where expires_at <= clock_timestamp()
     order by expires_at limit :limit for update skip locked)
   returning ${UPLOAD_COLUMNS}`,
)

/** Removes up to `limit` rows of sessions that expired or ended, and returns what they were. */
export async function takeExpiredUploads(
  db: Queryable,
  limit: number,
): Promise<{ taken: number; uploads: Upload[] }> {
  const rows = await db.rows(expired, { limit })
  // The bytes of an ended session were removed when it ended.
  return { taken: rows.length, uploads: rows.filter(({ repository }) => repository !== '').map(fromRow) }
}

const count = statement<{ open: number }>(
  'count-uploads',
  // The index skips ended sessions.
  `select count(*) as open from upload where repository > ''`,
)

export async function countUploads(db: Queryable): Promise<number> {
  return (await one(db, count)).open
}

const parts = statement<{ id: string; parts: unknown[] }>(
  'upload-parts',
  `select id, parts from upload where store = :store and id > :after::uuid order by id limit :limit`,
)

/** Returns a page of open sessions after an id. An orphan sweep must not touch their bytes. */
export async function uploadPartsPage(
  db: Queryable,
  options: { store: string; after: string; limit: number },
): Promise<{ id: string; parts: unknown[] }[]> {
  return db.rows(parts, { ...options })
}

function fromRow(row: UploadRow): Upload {
  const { id, repository, store, algorithm, attempt, bytes } = row
  return {
    id,
    repository,
    store,
    algorithm,
    attempt,
    session: { size: row.offset, digest: row.digest_so_far, parts: row.parts },
    bytes,
  }
}
