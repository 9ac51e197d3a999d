// How uploads end: the commit that makes bytes a blob of a repository, and the answers when the commit is not possible.
//
// A 201 depends on two checks. Before the commit, the object must be in the store and have its size. Otherwise the
// upload is unknown and the client begins again. After the commit, if the row kept an earlier upload's object, that
// object is proved or replaced (settle-blob.ts). Between the check and the commit only a sweep could remove the object.
// A sweep takes objects that are older than its grace time and that no session and no row names. If it removes an
// object in exactly that moment, the first HEAD or GET detects it and the next push repairs it. A small blob needs no
// check: its bytes are part of the commit.

import { type Attempt, type BlobStore, type StoredSession, StoreError } from '#shared/blobs/blob-store.ts'
import {
  type CommitOutcome,
  type CommittedUpload,
  commitBlob,
  commitSmallUpload,
} from '#shared/db/commit-blob.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import type { WritePosition } from '#shared/db/registers.ts'
import { newRowKey } from '#shared/db/row-store.ts'
import { cancelUpload, endUnbornUpload, endUpload, findUpload, type Upload } from '#shared/db/uploads.ts'
import { RegistryError } from '#shared/errors.ts'
import { algorithmOf, type Digest, digestBytes } from '#shared/oci/digest.ts'
import { type RepositoryName, shardOf } from '#shared/oci/reference.ts'
import { inRepository } from './in-repository.ts'
import type { Registry } from './registry.ts'
import { settleBlob } from './settle-blob.ts'
import type { UploadTarget } from './upload-ids.ts'

/** The session that a request works on. `attempt` is the request's own body, if it is already written. */
export type SessionOf = UploadTarget & { upload: CommittedUpload; attempt?: Attempt }

export interface Ending extends UploadTarget {
  readonly digest: Digest
  readonly provenance: Provenance
}

/** Makes the session's bytes in a store the blob. `attempt` is the last part of them. */
export async function commitStored(
  registry: Registry,
  options: Ending & SessionOf & { store: BlobStore; session: StoredSession; signal: AbortSignal },
): Promise<WritePosition> {
  const { digest, session, upload, attempt, store } = options
  const completing = store.complete(session, { algorithm: algorithmOf(digest), signal: options.signal })
  const { object, surplus, fresh } = await orBeginAgain(registry, options, completing)
  registry.reach('object-complete')
  // If the store held nothing for the session before, the object consists of this request's bytes alone.
  const ours = attempt !== undefined && !holdsObjects(upload)
  const dropOurs = async () => {
    await attempt?.abort()
    if (ours) await store.remove([object.key, ...surplus])
    else if (fresh) await store.remove([object.key])
  }
  if (object.digest !== digest) {
    await dropOurs()
    await endSession(registry, options)
    throw wrongDigest(digest, object)
  }
  if ((await store.stat(object.key))?.size !== object.size) {
    await dropOurs()
    throw await bytesGone(registry, options)
  }
  const outcome = await repeated(registry, options, (commit) =>
    commitBlob(registry.db, { ...commit, store: store.name, object, upload }),
  )
  if (outcome === undefined) {
    await dropOurs()
    throw await lostRace(registry, options)
  }
  registry.reach('blob-committed')
  await attempt?.joined()
  // Another upload of the same digest was first. Its object stays if it is sound, and these bytes have no row.
  const settled = await settleBlob(registry, { store, object, ...outcome })
  const unused = settled ? surplus : [...surplus, object.key]
  if (unused.length > 0) await store.remove(unused)
  registry.reach('surplus-removed')
  return outcome.position
}

function holdsObjects(upload: CommittedUpload): boolean {
  return upload !== null && 'row' in upload && upload.row.bytes === null && upload.row.session.size > 0
}

/** Makes bytes in memory the blob, in one statement. Returns undefined if the session is not what the caller saw. */
export async function commitSmall(
  registry: Registry,
  options: Ending & { upload: CommittedUpload; bytes: Buffer },
): Promise<WritePosition | undefined> {
  const { digest, upload, bytes } = options
  const object = { key: newRowKey(), size: bytes.length, digest }
  const outcome = await repeated(registry, options, (commit) =>
    commitBlob(registry.db, { ...commit, store: registry.smallBlobs.store.name, object, upload, bytes }),
  )
  return outcome && settleSmall(registry, object, outcome)
}

/**
 * The same for a session whose row holds all bytes and their digest. Also returns undefined if the row does not hold
 * them; the row is then unchanged.
 */
export async function commitSmallRow(
  registry: Registry,
  options: Ending & { uuid: string },
): Promise<WritePosition | undefined> {
  const { uuid: id, digest } = options
  const key = newRowKey()
  const outcome = await repeated(registry, options, (commit) =>
    commitSmallUpload(registry.db, { ...commit, store: registry.smallBlobs.store.name, id, digest, key }),
  )
  return outcome && settleSmall(registry, { key, size: outcome.size, digest }, outcome)
}

type Committed = Extract<CommitOutcome, { kind: 'committed' }>

async function settleSmall(
  registry: Registry,
  object: { key: string; size: number; digest: Digest },
  outcome: Committed,
): Promise<WritePosition> {
  const { store } = registry.smallBlobs
  registry.reach('blob-committed')
  if (!(await settleBlob(registry, { store, object, ...outcome }))) await store.remove([object.key])
  registry.reach('surplus-removed')
  return outcome.position
}

/** Creates the repository if it is missing. Returns undefined if the session is not what the caller saw. */
async function repeated(
  registry: Registry,
  { repository, provenance }: Ending,
  commit: (options: {
    repository: RepositoryName
    shard: number
    origin: string
    provenance: Provenance
  }) => Promise<CommitOutcome>,
): Promise<Committed | undefined> {
  const common = { repository, provenance, shard: shardOf(repository), origin: registry.name }
  const outcome = await inRepository(registry, { repository, write: () => commit(common) })
  return outcome.kind === 'committed' ? outcome : undefined
}

/** Ends the session, then returns 400 DIGEST_INVALID. */
export async function refuseDigest(
  registry: Registry,
  options: Ending & { upload: CommittedUpload; bytes: Buffer },
): Promise<RegistryError> {
  const { digest, bytes } = options
  await endSession(registry, options)
  return wrongDigest(digest, { digest: digestBytes(algorithmOf(digest), bytes), size: bytes.length })
}

function wrongDigest(digest: Digest, actual: { digest: Digest; size: number }): RegistryError {
  return new RegistryError('DIGEST_INVALID', {
    message: 'the content does not have this digest',
    details: [{ digest, actual: actual.digest, size: actual.size }],
  })
}

/** Only the request that takes the row may drop the session's bytes: another node may be committing them right now. */
async function endSession(registry: Registry, { upload }: { upload: CommittedUpload }): Promise<void> {
  if (upload === null) return
  if ('unborn' in upload) {
    // If the session has a row by now, or another request ended it, that request continues. This request added no
    // bytes.
    await endUnbornUpload(registry.db, upload.unborn)
    return
  }
  const { id, repository } = upload.row
  const taken = await cancelUpload(registry.db, { id, repository })
  if (taken !== undefined) await abandonUpload(registry, taken)
}

/** Drops the bytes of a session that has ended. */
export async function abandonUpload({ stores }: Pick<Registry, 'stores'>, upload: Upload): Promise<void> {
  if (upload.bytes === null) await (await stores.named(upload.store)).abandon(upload.session)
}

/** Runs work on a session's bytes. Ends the session if the store reports that the bytes are gone. */
export async function orBeginAgain<T>(registry: Registry, of: SessionOf, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (thrown) {
    if (!(thrown instanceof StoreError) || thrown.kind !== 'lost') throw thrown
    throw await bytesGone(registry, of, thrown)
  }
}

/**
 * Ends a session whose bytes are gone and returns the answer: 404 BLOB_UPLOAD_UNKNOWN. If another body joined the
 * session meanwhile, that body may have removed them. The session then continues from there, and the answer is 416 as
 * for any lost race.
 */
async function bytesGone(registry: Registry, of: SessionOf, cause?: unknown): Promise<RegistryError> {
  const { upload } = of
  await of.attempt?.abort()
  if (upload !== null && 'row' in upload) {
    if (!(await endUpload(registry.db, upload.row))) return lostRace(registry, of)
    await abandonUpload(registry, upload.row)
  }
  if (upload !== null && 'unborn' in upload) await endSession(registry, { upload })
  return new RegistryError('BLOB_UPLOAD_UNKNOWN', {
    cause,
    message: 'the bytes of this upload are gone: begin again',
  })
}

/**
 * Returns the answer to a request whose session another request changed: 416 with the session's position, or 404 if it
 * has ended.
 */
export async function lostRace(registry: Registry, of: SessionOf): Promise<RegistryError> {
  const { upload, repository } = of
  const id = upload === null ? undefined : 'row' in upload ? upload.row.id : upload.unborn.id
  const now = id === undefined ? undefined : await findUpload(registry.db, { id, repository })
  return now === undefined ? new RegistryError('BLOB_UPLOAD_UNKNOWN') : rangeInvalid(of, now.session.size)
}

export function rangeInvalid(target: UploadTarget, size: number): RegistryError {
  return new RegistryError('RANGE_INVALID', {
    message: `the session holds ${size} bytes: continue there`,
    headers: {
      Location: `/v2/${target.repository}/blobs/uploads/${target.id}`,
      'Docker-Upload-UUID': target.id,
      // If nothing was received, the field would have to be 0-0, which means one byte.
      ...(size > 0 && { Range: `0-${size - 1}` }),
    },
  })
}
