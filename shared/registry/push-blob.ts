// Uploading a blob: bodies that join sessions, and the end that makes a session a blob. Any node can continue a
// session.
//
// Each request body is an attempt. Its bytes are first stored durably in a separate place. Then a compare-and-set on
// the session's row decides whether they belong to the session. No database transaction is open while bytes are
// transferred. A 201 means durable bytes and a committed row. A crash at any point before that leaves an open session,
// or bytes without a row, which the janitor finds. A request that fails half-way puts the session back to where it was
// before.
//
// Small blobs are cheap. A session has no row before its first byte. A small first body creates the row and is stored
// in it. The closing PUT makes it a blob. Each of the two steps is one commit, without a file. A session that outgrows
// `smallBlobs` moves to the region's store and is then like any other. Sessions are not durable: a crash of the
// database may lose them, and clients begin again.

import { type BlobStore, EMPTY_SESSION, type StoredSession, StoreError } from '#shared/blobs/blob-store.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import type { WritePosition } from '#shared/db/registers.ts'
import { joinUpload, type UnbornUpload, type Upload } from '#shared/db/uploads.ts'
import { RegistryError } from '#shared/errors.ts'
import { algorithmOf, type Digest, type DigestAlgorithm, digestBytes } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import {
  commitSmall,
  commitSmallRow,
  commitStored,
  lostRace,
  orBeginAgain,
  rangeInvalid,
  refuseDigest,
} from './commit-upload.ts'
import { findBlob } from './pull.ts'
import type { Registry } from './registry.ts'
import {
  type BodyRange,
  bodyOf,
  giveUp,
  type IncomingBody,
  prefixed,
  readIfSmall,
  sizeInvalid,
} from './small-body.ts'
import type { UploadReference, UploadTarget } from './upload-ids.ts'
import {
  makeRow,
  positionOf,
  requireReference,
  requireRoom,
  requireSession,
  type UploadPosition,
} from './upload-sessions.ts'
import { writeAttempt } from './write-attempt.ts'

export interface AppendOptions extends UploadTarget {
  readonly body: IncomingBody
  readonly range: BodyRange | undefined
  readonly actor: string
}

/**
 * Appends a body. With a range, its start must be the session's size (otherwise 416, and the session is unchanged) and
 * its length must be that of the body (otherwise 400 SIZE_INVALID). Returns 429 if it is the first body and the
 * repository has too many sessions.
 */
export async function appendToUpload(registry: Registry, options: AppendOptions): Promise<UploadPosition> {
  const reading = { body: options.body }
  try {
    return await append(registry, options, reading)
  } finally {
    await giveUp(reading.body)
  }
}

async function append(
  registry: Registry,
  options: AppendOptions,
  reading: { body: IncomingBody },
): Promise<UploadPosition> {
  const { range, actor } = options
  await requireRoom(registry)
  const reference = await requireReference(registry, options)
  const { unborn } = reference
  let upload: Upload | undefined
  if (unborn !== undefined && (range === undefined || range.start === 0)) {
    checkRange(0, options)
    const first = await readIfSmall(reading.body, { bytesMax: registry.smallBlobs.bytesMax(), range })
    if ('bytes' in first) {
      const { bytes } = first
      const small = { bytes, digest: digestBytes(unborn.algorithm, bytes) }
      const made = await makeRow(registry, { unborn, small, actor })
      registry.reach('attempt-joined')
      if (made !== undefined) return positionOf(registry, made, bytes.length, true)
      reading.body = bodyOf(bytes, reading.body.signal)
    } else {
      reading.body = first.body
      upload = await makeRow(registry, { unborn, small: null, actor })
    }
  }
  if (upload === undefined) {
    const session = await requireSession(registry, reference, options)
    if ('unborn' in session) throw rangeInvalid(options, 0)
    upload = session.row
  }
  checkRange(upload.session.size, options)
  return upload.bytes === null
    ? appendStored(registry, { ...options, body: reading.body, upload })
    : appendSmall(registry, { ...options, body: reading.body, upload, held: upload.bytes })
}

/** Appends to a session whose bytes are in its row. The bytes stay there, or all of them move to the store. */
async function appendSmall(
  registry: Registry,
  options: AppendOptions & { upload: Upload; held: Buffer },
): Promise<UploadPosition> {
  const { upload, held, range } = options
  const more = await readIfSmall(options.body, {
    bytesMax: registry.smallBlobs.bytesMax() - held.length,
    range,
  })
  if ('body' in more) {
    const body = prefixed(held, { body: more.body, range })
    return appendStored(
      registry,
      { ...options, body, range: undefined, upload: outgrown(registry, upload) },
      upload,
    )
  }
  const bytes = Buffer.concat([held, more.bytes])
  const session = { size: bytes.length, digest: digestBytes(upload.algorithm, bytes), parts: [] }
  const { uploadTtlSeconds: ttlSeconds } = registry.limits
  if (!(await joinUpload(registry.db, { upload, store: upload.store, session, bytes, ttlSeconds }))) {
    throw await lostRace(registry, { ...options, upload: { row: upload } })
  }
  registry.reach('attempt-joined')
  return positionOf(registry, upload, session.size, true)
}

/** Returns a small session as it begins in the region's store: empty until its bytes are moved there. */
function outgrown(registry: Registry, upload: Upload): Upload {
  return { ...upload, store: registry.blobs.name, session: EMPTY_SESSION, bytes: null }
}

/** `seen` is what the row says, if that differs from what the bytes are appended to. */
async function appendStored(
  registry: Registry,
  options: AppendOptions & { upload: Upload },
  seen = options.upload,
): Promise<UploadPosition> {
  const { upload } = options
  const store = await registry.stores.named(upload.store)
  const of = { ...options, upload: { row: seen } }
  const writing = writeAttempt(registry, {
    ...options,
    store,
    from: upload.session,
    algorithm: upload.algorithm,
  })
  const { attempt, kept, session } = await orBeginAgain(registry, of, writing)
  await using _ = attempt
  await using __ = kept
  registry.reach('attempt-durable')
  const { uploadTtlSeconds: ttlSeconds } = registry.limits
  const joining = { upload: seen, store: store.name, session, bytes: null, ttlSeconds }
  if (!(await joinUpload(registry.db, joining))) {
    await attempt.abort()
    throw await lostRace(registry, of)
  }
  registry.reach('attempt-joined')
  await attempt.joined()
  return positionOf(registry, upload, session.size, false)
}

export interface FinishOptions extends UploadTarget {
  readonly digest: Digest
  readonly body: IncomingBody
  readonly range: BodyRange | undefined
  readonly provenance: Provenance
}

/**
 * Ends the session with an optional last body and makes it a blob of the repository. A digest that does not match the
 * content is 400 DIGEST_INVALID and ends the session. Clients repeat a request whose answer was lost (docker does). If
 * the session is gone and the repository holds the digest, the push was completed earlier and succeeds, without a new
 * position. Otherwise it is 404 BLOB_UPLOAD_UNKNOWN.
 */
export async function finishUpload(
  registry: Registry,
  options: FinishOptions,
): Promise<WritePosition | undefined> {
  const reading = { body: options.body }
  // Accepts only ids in the form that this region gives out. Nothing else was ever a session.
  const reference = await requireReference(registry, options)
  try {
    return await finish(registry, { ...options, reference }, reading)
  } catch (thrown) {
    const gone =
      (thrown instanceof RegistryError && thrown.code === 'BLOB_UPLOAD_UNKNOWN') ||
      (thrown instanceof StoreError && thrown.kind === 'lost')
    if (!gone || (await findBlob(registry, options)) === undefined) throw thrown
    return undefined
  } finally {
    await giveUp(reading.body)
  }
}

async function finish(
  registry: Registry,
  options: FinishOptions & { reference: UploadReference },
  reading: { body: IncomingBody },
): Promise<WritePosition> {
  const { reference, digest, range } = options
  const { uuid, small, unborn } = reference
  await requireRoom(registry)
  if (small && options.body.length === 0 && range === undefined) {
    const position = await commitSmallRow(registry, { ...options, uuid })
    if (position !== undefined) return position
  }
  if (unborn !== undefined && (range === undefined || range.start === 0)) {
    checkRange(0, options)
    const whole = await readIfSmall(reading.body, { bytesMax: registry.smallBlobs.bytesMax(), range })
    reading.body = 'body' in whole ? whole.body : bodyOf(whole.bytes, reading.body.signal)
    if ('bytes' in whole && digestBytes(algorithmOf(digest), whole.bytes) === digest) {
      const position = await commitSmall(registry, { ...options, upload: { unborn }, bytes: whole.bytes })
      if (position !== undefined) return position
    }
  }
  const upload = await requireSession(registry, reference, options)
  const row = 'row' in upload ? upload.row : undefined
  checkRange(row?.session.size ?? 0, options)
  if (row === undefined || row.bytes !== null) {
    const held = row?.bytes ?? Buffer.alloc(0)
    const last = await readIfSmall(reading.body, {
      bytesMax: registry.smallBlobs.bytesMax() - held.length,
      range,
    })
    if ('bytes' in last) {
      const bytes = Buffer.concat([held, last.bytes])
      const ending = { ...options, upload, bytes }
      if (digestBytes(algorithmOf(digest), bytes) !== digest) throw await refuseDigest(registry, ending)
      const position = await commitSmall(registry, ending)
      if (position === undefined) throw await lostRace(registry, ending)
      return position
    }
    reading.body = last.body
    const body = prefixed(held, { body: last.body, range })
    return finishStored(registry, {
      ...options,
      body,
      range: undefined,
      upload,
      from: EMPTY_SESSION,
      store: registry.blobs,
    })
  }
  const store = await registry.stores.named(row.store)
  const { session } = row
  if (options.body.length === 0) {
    return commitStored(registry, { ...options, upload, store, session, signal: options.body.signal })
  }
  const algorithm = session.size === 0 ? undefined : row.algorithm
  const body = reading.body
  return finishStored(registry, { ...options, body, upload, store, from: session, algorithm })
}

/** Writes the last body to the store and commits the result. */
async function finishStored(
  registry: Registry,
  options: Omit<FinishOptions, 'id'> &
    UploadTarget & {
      upload: { row: Upload } | { unborn: UnbornUpload } | null
      store: BlobStore
      from: StoredSession
      algorithm?: DigestAlgorithm | undefined
    },
): Promise<WritePosition> {
  const { body, upload, digest } = options
  const algorithm = options.algorithm ?? algorithmOf(digest)
  const { attempt, kept, session } = await orBeginAgain(
    registry,
    { ...options, upload },
    writeAttempt(registry, { ...options, algorithm }),
  )
  await using _ = attempt
  await using __ = kept
  registry.reach('attempt-durable')
  return commitStored(registry, { ...options, session, attempt, signal: body.signal })
}

/** Pushes the whole blob in one POST. */
export async function pushWholeBlob(
  registry: Registry,
  options: { repository: RepositoryName; digest: Digest; body: IncomingBody; provenance: Provenance },
): Promise<WritePosition> {
  const { digest } = options
  await requireRoom(registry)
  const reading = { body: options.body }
  try {
    const whole = await readIfSmall(reading.body, {
      bytesMax: registry.smallBlobs.bytesMax(),
      range: undefined,
    })
    const ending = { ...options, id: '', upload: null }
    if ('bytes' in whole) {
      const { bytes } = whole
      if (digestBytes(algorithmOf(digest), bytes) !== digest)
        throw await refuseDigest(registry, { ...ending, bytes })
      const position = await commitSmall(registry, { ...ending, bytes })
      if (position !== undefined) return position
      throw new Error('a commit without a session has lost one')
    }
    reading.body = whole.body
    const { body } = whole
    return await finishStored(registry, {
      ...ending,
      body,
      range: undefined,
      store: registry.blobs,
      from: EMPTY_SESSION,
    })
  } finally {
    await giveUp(reading.body)
  }
}

function checkRange(
  size: number,
  options: UploadTarget & { range: BodyRange | undefined; body: IncomingBody },
): void {
  const { range, body } = options
  if (range === undefined) return
  if (range.start !== size || range.start > range.end) throw rangeInvalid(options, size)
  if (body.length !== undefined && body.length !== range.end - range.start + 1) throw sizeInvalid()
}
