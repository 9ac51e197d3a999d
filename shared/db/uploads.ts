// Upload sessions. A row is all there is of one: any node continues it. Each request body is an attempt that joins by
// compare-and-set on (id, offset, attempt); whoever comes second finds the row changed and has lost.

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
}

const insert = statement<{ open: number }>(
  'open-upload',
  `insert into upload (id, repository, region, store, algorithm, actor, expires_at)
   select :id, :repository, :region, :store, :algorithm, :actor,
     clock_timestamp() + make_interval(secs => :ttl_seconds)
   where (select count(*) from (select from upload where repository = :repository limit :open_max) as open) < :open_max
   returning 1 as open`,
)

/** Opens a session; false when the repository has `openMax` of them already. */
export async function openUpload(
  db: Queryable,
  options: {
    id: string
    repository: RepositoryName
    region: string
    store: string
    algorithm: DigestAlgorithm
    actor: string
    ttlSeconds: number
    openMax: number
  },
): Promise<boolean> {
  const { ttlSeconds, openMax, ...rest } = options
  const row = await maybe(db, insert, { ...rest, ttl_seconds: ttlSeconds, open_max: openMax })
  return row !== undefined
}

const UPLOAD_COLUMNS = `id, repository, store, algorithm, attempt, "offset", parts, digest_so_far`

const find = statement<UploadRow>(
  'find-upload',
  `select ${UPLOAD_COLUMNS} from upload
   where id = :id and repository = :repository and expires_at > clock_timestamp()`,
)

/** The session, if it belongs to this repository and has not expired. */
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
   set attempt = attempt + 1, "offset" = :size, parts = :parts::jsonb, digest_so_far = :digest,
     expires_at = clock_timestamp() + make_interval(secs => :ttl_seconds)
   where id = :id and attempt = :attempt and "offset" = :offset
   returning attempt`,
)

/** Records the session with an attempt appended; false when another attempt came first. */
export async function joinUpload(
  db: Queryable,
  options: { upload: Upload; session: StoredSession; ttlSeconds: number },
): Promise<boolean> {
  const { upload, session, ttlSeconds } = options
  const row = await maybe(db, join, {
    id: upload.id,
    attempt: upload.attempt,
    offset: upload.session.size,
    size: session.size,
    parts: JSON.stringify(session.parts),
    digest: session.digest,
    ttl_seconds: ttlSeconds,
  })
  return row !== undefined
}

const remove = statement<UploadRow>(
  'cancel-upload',
  `delete from upload where id = :id and repository = :repository returning ${UPLOAD_COLUMNS}`,
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
  `delete from upload where id = :id and attempt = :attempt and "offset" = :offset returning 1 as ended`,
)

/** Ends a session that is still what the caller saw; false when another body joined it, or it is gone. */
export async function endUpload(db: Queryable, upload: Upload): Promise<boolean> {
  const { id, attempt, session } = upload
  return (await maybe(db, end, { id, attempt, offset: session.size })) !== undefined
}

const expired = statement<UploadRow>(
  'take-expired-uploads',
  `delete from upload where id in (
     select id from upload where expires_at <= clock_timestamp()
     order by expires_at limit :limit for update skip locked)
   returning ${UPLOAD_COLUMNS}`,
)

/** Removes up to `limit` expired sessions and returns what they were. */
export async function takeExpiredUploads(db: Queryable, limit: number): Promise<Upload[]> {
  return (await db.rows(expired, { limit })).map(fromRow)
}

const count = statement<{ open: number }>('count-uploads', `select count(*) as open from upload`)

export async function countUploads(db: Queryable): Promise<number> {
  return (await one(db, count)).open
}

const parts = statement<{ id: string; parts: unknown[] }>(
  'upload-parts',
  `select id, parts from upload where store = :store and id > :after::uuid order by id limit :limit`,
)

/** Open sessions after an id, a page at a time: what an orphan sweep must not touch. */
export async function uploadPartsPage(
  db: Queryable,
  options: { store: string; after: string; limit: number },
): Promise<{ id: string; parts: unknown[] }[]> {
  return db.rows(parts, { ...options })
}

function fromRow(row: UploadRow): Upload {
  const { id, repository, store, algorithm, attempt } = row
  return {
    id,
    repository,
    store,
    algorithm,
    attempt,
    session: { size: row.offset, digest: row.digest_so_far, parts: row.parts },
  }
}
