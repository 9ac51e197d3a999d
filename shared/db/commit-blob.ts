// The commit of an upload: one statement that makes bytes the blob of a digest and links it to the repository.
//
// It keeps the lock order (registers.ts): repository -> the session's row, taken by compare-and-set -> membership ->
// blob -> event. If two uploads of one digest race, the first key stays. The second upload's bytes are surplus, and the
// caller drops them. A small blob's bytes are part of the same statement, so the whole push is one commit: either the
// caller passes the bytes, or they are already in the session's row.

import type { StoredObject } from '#shared/blobs/blob-store.ts'
import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { type BlobPlace, EVENT, LEASE_SECONDS, linkedFrom } from './blobs.ts'
import { type Provenance, provenanceParameters } from './provenance.ts'
import { EPOCH, LIVE_REPOSITORY, type WritePosition } from './registers.ts'
import { one, type Queryable, type Statement, statement } from './statement.ts'
import {
  AS_SEEN,
  casParameters,
  takenUnborn,
  takenUpload,
  type UnbornUpload,
  type Upload,
  unbornParameters,
} from './uploads.ts'

interface CommitRow {
  repository: boolean
  kept: BlobPlace | null
  replaced: BlobPlace | null
  size: number | null
  outbox_id: number | null
  epoch: number
}

/**
 * `taken`: the stage that takes the session, if there is one. `size` and `content` are SQL expressions for the blob's
 * size and bytes. `content` reads `from`.
 */
function commitStatement(
  name: string,
  parts: { taken?: string; size: string; content?: { bytes: string; from: string } },
): Statement<CommitRow> {
  const { taken, size, content } = parts
  return statement<CommitRow>(
    name,
    `with repo as (${LIVE_REPOSITORY}),
     ${taken === undefined ? '' : `${taken},`}
     member as (${linkedFrom(
       `select :digest as digest ${taken === undefined ? '' : 'where exists (select from taken)'}`,
     )}),
     bytes as (
       insert into blob as b (digest, store, key, size, lease_until)
       select digest, :store, :key, ${size}, clock_timestamp() + make_interval(secs => ${LEASE_SECONDS})
       from member
       on conflict (digest) do update
         set store = case when b.state = 'ready' then b.store else excluded.store end,
           key = case when b.state = 'ready' then b.key else excluded.key end,
           state = 'ready',
           lease_until = greatest(b.lease_until, excluded.lease_until)
       returning b.digest, b.store, b.key, b.size
     ),
     ${
       content === undefined
         ? ''
         : `content as (insert into blob_bytes (key, bytes) select :key, ${content.bytes} from ${content.from}),`
     }
     event as (${EVENT})
     select exists (select from repo) as repository,
       (select jsonb_build_object('store', store, 'key', key) from bytes) as kept,
       (select jsonb_build_object('store', store, 'key', key) from blob
        where digest = :digest and state = 'damaged') as replaced,
       (select size from bytes) as size,
       (select max(id) from event) as outbox_id,
       ${EPOCH} as epoch`,
  )
}

const IN_REPOSITORY = 'exists (select from repo)'
const seen = takenUpload(`${IN_REPOSITORY} and ${AS_SEEN}`)
const unborn = takenUnborn(IN_REPOSITORY)
const SIZE = ':size::bigint'
const CONTENT = { bytes: ':bytes::bytea', from: 'bytes' }

const statements = Object.freeze({
  stored: commitStatement('commit-blob', { size: SIZE }),
  storedOfUpload: commitStatement('commit-upload', { taken: seen, size: SIZE }),
  storedOfUnborn: commitStatement('commit-unborn-upload', { taken: unborn, size: SIZE }),
  small: commitStatement('commit-small-blob', { size: SIZE, content: CONTENT }),
  smallOfUpload: commitStatement('commit-small-of-upload', { taken: seen, size: SIZE, content: CONTENT }),
  smallOfUnborn: commitStatement('commit-small-of-unborn', { taken: unborn, size: SIZE, content: CONTENT }),
})

const ofRow = commitStatement('commit-small-upload', {
  taken: takenUpload(
    `${IN_REPOSITORY} and bytes is not null and digest_so_far = :digest and expires_at > clock_timestamp()`,
  ),
  size: '(select "offset" from taken)',
  content: { bytes: 'taken.bytes', from: 'taken' },
})

export type CommitOutcome =
  | {
      readonly kind: 'committed'
      /** What the row names now: the caller's object, or the one that was there. */
      readonly kept: BlobPlace
      /** The damaged object that the row named before. It is no longer needed. */
      readonly replaced: BlobPlace | undefined
      readonly size: number
      readonly position: WritePosition
    }
  | { readonly kind: 'repository-missing' }
  /** The session's row is not what the caller saw, or its signed Location is no longer valid. */
  | { readonly kind: 'upload-lost' }

/** The session that a commit ends. null: the whole blob came in one request. */
export type CommittedUpload = { readonly row: Upload } | { readonly unborn: UnbornUpload } | null

export interface Commit {
  readonly repository: RepositoryName
  readonly shard: number
  readonly origin: string
  readonly store: string
  readonly provenance: Provenance
}

/**
 * Makes the object the digest's blob (or keeps the existing one) and links it to the repository. With a session, does
 * so only if the session is still what the caller saw. The digest may use another algorithm than the one with which the
 * object's bytes were first hashed; the caller has verified it. `bytes`: the bytes of a small blob, which become the
 * object.
 */
export async function commitBlob(
  db: Queryable,
  options: Commit & { object: StoredObject; upload: CommittedUpload; bytes?: Buffer },
): Promise<CommitOutcome> {
  const { upload, object, bytes, ...rest } = options
  const kind = bytes === undefined ? 'stored' : 'small'
  const of = upload === null ? '' : 'row' in upload ? 'OfUpload' : 'OfUnborn'
  const session =
    upload === null ? {} : 'row' in upload ? casParameters(upload.row) : unbornParameters(upload.unborn)
  const row = await one(db, statements[`${kind}${of}`], {
    ...parametersOf(rest),
    ...object,
    ...session,
    ...(bytes !== undefined && { bytes }),
  })
  return outcomeOf(row)
}

/**
 * Makes the bytes in a small session's row the digest's blob, under the given key. Also returns 'upload-lost' if the
 * session is no longer small, or its digest is another. The caller then reads the row.
 */
export async function commitSmallUpload(
  db: Queryable,
  options: Commit & { id: string; digest: Digest; key: string },
): Promise<CommitOutcome> {
  const { id, digest, key, ...rest } = options
  return outcomeOf(await one(db, ofRow, { ...parametersOf(rest), id, digest, key }))
}

function parametersOf({ provenance, ...rest }: Commit) {
  return {
    ...rest,
    event_type: 'dev.portolan.registry.blob.uploaded.v1',
    facts: '{}',
    ...provenanceParameters(provenance),
  }
}

function outcomeOf(row: CommitRow): CommitOutcome {
  if (!row.repository) return { kind: 'repository-missing' }
  const { kept, replaced, size, outbox_id: outboxId, epoch } = row
  if (kept === null || size === null || outboxId === null) return { kind: 'upload-lost' }
  // A blob that was damaged when the statement began may have been found sound before the statement locked its row.
  const gone = replaced === null || replaced.key === kept.key ? undefined : replaced
  return { kind: 'committed', kept, replaced: gone, size, position: { epoch, outboxId } }
}
