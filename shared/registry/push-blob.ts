// Uploading a blob: sessions that any node continues, and the commit that makes their bytes a blob of a repository.
//
// Each request body is an attempt: its bytes become durable somewhere of their own, then a compare-and-set on the
// session's row decides whether they belong to it. No database transaction is open while bytes move. What is answered
// 201 is durable bytes plus a committed row; whatever dies in between leaves either an open session or bytes without
// a row, which the janitor finds. A request that fails half-way puts the session back to where it was before.
//
// A 201 stands on two proofs. Before the commit the object is looked at in the store: it is there and has its size, or
// the upload is unknown and the client begins again. After the commit, when the row kept an earlier upload's object,
// that one is proved or replaced (settle-blob.ts). Between the look and its commit only a sweep could remove the object.
// It takes what is older than its grace time and named by no session and no row; what it removes in just that moment is
// found by the first HEAD or GET, and the next push repairs it.

import { randomUUID } from 'node:crypto'
import {
  type Attempt,
  type BlobStore,
  EMPTY_SESSION,
  type StoredSession,
  StoreError,
} from '#shared/blobs/blob-store.ts'
import { commitBlob } from '#shared/db/blobs.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import type { WritePosition } from '#shared/db/registers.ts'
import { ensureRepository } from '#shared/db/repositories.ts'
import {
  cancelUpload as cancelUploadRow,
  endUpload,
  findUpload,
  joinUpload,
  openUpload as openUploadRow,
  type Upload,
} from '#shared/db/uploads.ts'
import { RegistryError } from '#shared/errors.ts'
import { algorithmOf, type Digest, type DigestAlgorithm } from '#shared/oci/digest.ts'
import { type RepositoryName, shardOf } from '#shared/oci/reference.ts'
import { keepAttempt } from './keep-attempt.ts'
import { findBlob } from './pull.ts'
import type { Registry } from './registry.ts'
import { settleBlob } from './settle-blob.ts'

/** A commit that finds its repository missing makes it and tries again; a delete may come between, but not for ever. */
const COMMIT_TRIES_MAX = 4

/** A request body on its way in. */
export interface IncomingBody {
  /** The bytes in order; throws when the client goes away or sends too slowly. */
  readonly chunks: AsyncIterable<Buffer>
  /** Content-Length; undefined for a chunked body. */
  readonly length: number | undefined
  readonly signal: AbortSignal
}

export interface UploadPosition {
  readonly id: string
  readonly size: number
}

export interface UploadTarget {
  readonly repository: RepositoryName
  readonly id: string
}

/** Opens a session. 429 when the repository has too many open. */
export async function openUpload(
  registry: Registry,
  options: { repository: RepositoryName; algorithm: DigestAlgorithm; provenance: Provenance },
): Promise<UploadPosition> {
  const { repository, algorithm, provenance } = options
  await registry.requireDatabaseRoom()
  const uuid = randomUUID()
  const opened = await openUploadRow(registry.db, {
    id: uuid,
    repository,
    region: registry.name,
    store: registry.blobs.name,
    algorithm,
    actor: provenance.actor,
    ttlSeconds: registry.limits.uploadTtlSeconds,
    openMax: registry.limits.uploadsPerRepositoryMax,
  })
  if (!opened) {
    throw new RegistryError('TOOMANYREQUESTS', {
      message: 'too many uploads are open in this repository: finish or cancel some',
      headers: { 'Retry-After': '60' },
    })
  }
  return { id: uploadIdOf(registry, uuid), size: 0 }
}

/** Where a session stands. 404 BLOB_UPLOAD_UNKNOWN when it is not this repository's. */
export async function uploadPosition(registry: Registry, target: UploadTarget): Promise<UploadPosition> {
  const upload = await requireUpload(registry, target)
  return { id: target.id, size: upload.session.size }
}

/**
 * Appends a body. With a range, its start must be the session's size (416 otherwise, the session is unharmed) and its
 * length that of the body (400 SIZE_INVALID).
 */
export async function appendToUpload(
  registry: Registry,
  options: UploadTarget & {
    body: IncomingBody
    range: { start: number; end: number } | undefined
  },
): Promise<UploadPosition> {
  const upload = await requireUpload(registry, options)
  checkRange(upload, options)
  const store = await registry.stores.named(upload.store)
  const from = upload.session
  const writing = writeAttempt(registry, { ...options, store, from, algorithm: upload.algorithm })
  const written = await orBeginAgain(registry, { ...options, upload }, writing)
  await using attempt = written.attempt
  await using _ = written.kept
  const { session } = written
  registry.reach('attempt-durable')
  const joined = await joinUpload(registry.db, {
    upload,
    session,
    ttlSeconds: registry.limits.uploadTtlSeconds,
  })
  if (!joined) {
    await attempt.abort()
    const now = await requireUpload(registry, options)
    throw rangeInvalid(options, now.session.size)
  }
  registry.reach('attempt-joined')
  await attempt.joined()
  return { id: options.id, size: session.size }
}

export interface FinishOptions extends UploadTarget {
  readonly digest: Digest
  readonly body: IncomingBody
  readonly range: { start: number; end: number } | undefined
  readonly provenance: Provenance
}

/**
 * Ends the session with an optional last body and makes it a blob of the repository. A digest that is not the
 * content's is 400 DIGEST_INVALID and ends the session. Clients repeat a request whose answer was lost (docker does): when
 * the session is gone and the repository holds the digest, the push is done and says so; it has no new position then.
 * 404 BLOB_UPLOAD_UNKNOWN otherwise.
 */
export async function finishUpload(
  registry: Registry,
  options: FinishOptions,
): Promise<WritePosition | undefined> {
  try {
    return await finishSession(registry, options)
  } catch (thrown) {
    const gone =
      (thrown instanceof RegistryError && thrown.code === 'BLOB_UPLOAD_UNKNOWN') ||
      (thrown instanceof StoreError && thrown.kind === 'lost')
    // Only an id as this region gives them out: nothing else was ever a session to finish.
    if (!gone || uuidOf(registry, options.id) === undefined) throw thrown
    if ((await findBlob(registry, options)) === undefined) throw thrown
    return undefined
  }
}

async function finishSession(registry: Registry, options: FinishOptions): Promise<WritePosition> {
  const upload = await requireUpload(registry, options)
  checkRange(upload, options)
  if (options.body.length === 0)
    return commitSession(registry, { ...options, upload, session: upload.session })
  const algorithm = upload.session.size === 0 ? algorithmOf(options.digest) : upload.algorithm
  const store = await registry.stores.named(upload.store)
  const writing = writeAttempt(registry, { ...options, store, from: upload.session, algorithm })
  const { attempt, kept, session } = await orBeginAgain(registry, { ...options, upload }, writing)
  await using _ = attempt
  await using __ = kept
  registry.reach('attempt-durable')
  return commitSession(registry, { ...options, upload, session, attempt })
}

/** The whole blob in one POST. */
export async function pushWholeBlob(
  registry: Registry,
  options: { repository: RepositoryName; digest: Digest; body: IncomingBody; provenance: Provenance },
): Promise<WritePosition> {
  const { attempt, kept, session } = await writeAttempt(registry, {
    ...options,
    store: registry.blobs,
    from: EMPTY_SESSION,
    algorithm: algorithmOf(options.digest),
  })
  await using _ = attempt
  await using __ = kept
  registry.reach('attempt-durable')
  return commitSession(registry, { ...options, id: '', upload: null, session, attempt })
}

/** Ends a session and drops its bytes. */
export async function cancelUpload(registry: Registry, target: UploadTarget): Promise<void> {
  const uuid = uuidOf(registry, target.id)
  const upload = uuid && (await cancelUploadRow(registry.db, { id: uuid, repository: target.repository }))
  if (!upload) throw new RegistryError('BLOB_UPLOAD_UNKNOWN')
  registry.reach('upload-cancelled')
  await (await registry.stores.named(upload.store)).abandon(upload.session)
}

async function requireUpload(registry: Registry, target: UploadTarget): Promise<Upload> {
  const uuid = uuidOf(registry, target.id)
  const upload = uuid && (await findUpload(registry.db, { id: uuid, repository: target.repository }))
  if (!upload) throw new RegistryError('BLOB_UPLOAD_UNKNOWN')
  return upload
}

function checkRange(
  upload: Upload,
  options: UploadTarget & { range: { start: number; end: number } | undefined; body: IncomingBody },
): void {
  const { range, body } = options
  if (range === undefined) return
  if (range.start !== upload.session.size || range.start > range.end) {
    throw rangeInvalid(options, upload.session.size)
  }
  if (body.length !== undefined && body.length !== range.end - range.start + 1) {
    throw new RegistryError('SIZE_INVALID', { closeConnection: true })
  }
}

function rangeInvalid(target: UploadTarget, size: number): RegistryError {
  return new RegistryError('RANGE_INVALID', {
    message: `the session holds ${size} bytes: continue there`,
    headers: {
      Location: `/v2/${target.repository}/blobs/uploads/${target.id}`,
      'Docker-Upload-UUID': target.id,
      // With nothing received the field would have to be 0-0, which reads as one byte.
      ...(size > 0 && { Range: `0-${size - 1}` }),
    },
  })
}

/** `kept` is to be disposed when a row names the bytes. */
async function writeAttempt(
  registry: Registry,
  options: {
    store: BlobStore
    from: StoredSession
    algorithm: DigestAlgorithm
    body: IncomingBody
    range?: { start: number; end: number } | undefined
  },
): Promise<{ attempt: Attempt; kept: AsyncDisposable; session: StoredSession }> {
  const { store, body, range } = options
  await registry.requireDatabaseRoom()
  await registry.ownership.require()
  const attempt = await store.begin(options.from, {
    algorithm: options.algorithm,
    length: body.length,
    signal: body.signal,
  })
  const kept = keepAttempt(registry, { store, attempt })
  try {
    const expected = body.length ?? (range && range.end - range.start + 1)
    let received = 0
    for await (const chunk of body.chunks) {
      received += chunk.length
      if (expected !== undefined && received > expected) break
      await attempt.write(chunk)
    }
    if (expected !== undefined && received !== expected) {
      throw new RegistryError('SIZE_INVALID', { closeConnection: true })
    }
    return { attempt, kept, session: await attempt.finish() }
  } catch (thrown) {
    await attempt.abort()
    await kept[Symbol.asyncDispose]()
    throw thrown
  }
}

async function commitSession(
  registry: Registry,
  options: UploadTarget & {
    digest: Digest
    session: StoredSession
    upload: Upload | null
    attempt?: Attempt
    provenance: Provenance
    body: IncomingBody
  },
): Promise<WritePosition> {
  const { repository, digest, session, upload, attempt, provenance } = options
  // A session stays in the store it was begun in.
  const store = upload === null ? registry.blobs : await registry.stores.named(upload.store)
  const algorithm = algorithmOf(digest)
  const completing = store.complete(session, { algorithm, signal: options.body.signal })
  const { object, surplus, fresh } = await orBeginAgain(registry, options, completing)
  registry.reach('object-complete')
  // Where nothing was in the session before, the object is made of this request's bytes alone and nobody else's.
  const ours = attempt !== undefined && (upload === null || upload.session.size === 0)
  const dropOurs = async () => {
    await attempt?.abort()
    if (ours) await store.remove([object.key, ...surplus])
    else if (fresh) await store.remove([object.key])
  }
  if (object.digest !== digest) {
    await dropOurs()
    if (upload !== null) await endSession(registry, { upload })
    throw new RegistryError('DIGEST_INVALID', {
      message: 'the content does not have this digest',
      details: [{ digest, actual: object.digest, size: object.size }],
    })
  }
  if ((await store.stat(object.key))?.size !== object.size) {
    await dropOurs()
    throw await bytesGone(registry, options)
  }
  const statement = {
    repository,
    object,
    upload,
    provenance,
    shard: shardOf(repository),
    origin: registry.name,
    store: store.name,
  }
  for (let tries = 1; tries <= COMMIT_TRIES_MAX; tries++) {
    const outcome = await commitBlob(registry.db, statement)
    if (outcome.kind === 'repository-missing') {
      await ensureRepository(registry.db, { name: repository, origin: registry.name })
      continue
    }
    if (outcome.kind === 'upload-lost') {
      await dropOurs()
      const now = await requireUpload(registry, options)
      throw rangeInvalid(options, now.session.size)
    }
    registry.reach('blob-committed')
    await attempt?.joined()
    // Another upload of the same digest was first: its object stays if it is sound, and these bytes have no row.
    const settled = await settleBlob(registry, { store, object, ...outcome })
    const unused = settled ? surplus : [...surplus, object.key]
    if (unused.length > 0) await store.remove(unused)
    registry.reach('surplus-removed')
    return outcome.position
  }
  throw new RegistryError('UNAVAILABLE', {
    message: 'the repository is being deleted again and again: try later',
    headers: { 'Retry-After': '1' },
  })
}

/** Of a request that works on a session; `attempt` is its own body, if that is written already. */
type SessionOf = UploadTarget & { upload: Upload | null; attempt?: Attempt }

/** Work on a session's bytes. Where the store finds them gone the session ends. */
async function orBeginAgain<T>(registry: Registry, of: SessionOf, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (thrown) {
    if (!(thrown instanceof StoreError) || thrown.kind !== 'lost') throw thrown
    throw await bytesGone(registry, of, thrown)
  }
}

/**
 * Ends a session whose bytes are gone and returns the answer: 404 BLOB_UPLOAD_UNKNOWN. Another body that joined
 * meanwhile may be what removed them; the session then goes on from there, and the answer is 416 as for any lost race.
 */
async function bytesGone(registry: Registry, of: SessionOf, cause?: unknown): Promise<RegistryError> {
  const { upload } = of
  await of.attempt?.abort()
  if (upload !== null && (await endUpload(registry.db, upload))) {
    await (await registry.stores.named(upload.store)).abandon(upload.session)
  } else if (upload !== null) {
    const now = await requireUpload(registry, of)
    return rangeInvalid(of, now.session.size)
  }
  return new RegistryError('BLOB_UPLOAD_UNKNOWN', {
    cause,
    message: 'the bytes of this upload are gone: begin again',
  })
}

/** Only who takes the row may drop the session's bytes: another node may just be committing them. */
async function endSession(registry: Registry, options: { upload: Upload }): Promise<void> {
  const { id, repository } = options.upload
  const taken = await cancelUploadRow(registry.db, { id, repository })
  if (taken !== undefined) await (await registry.stores.named(taken.store)).abandon(taken.session)
}

/** Upload ids name the region whose store has the bytes, so that any region's node can find the session. */
function uploadIdOf(registry: Registry, uuid: string): string {
  return `${registry.name}.${uuid}`
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** The session's uuid; undefined for an id that this region never gave out. */
function uuidOf(registry: Registry, id: string): string | undefined {
  const prefix = `${registry.name}.`
  const uuid = id.slice(prefix.length)
  return id.startsWith(prefix) && UUID.test(uuid) ? uuid : undefined
}
