// Upload sessions between their bodies: begin, look up, create the row with the first body, cancel.

import { EMPTY_SESSION } from '#shared/blobs/blob-store.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import {
  cancelUpload as cancelUploadRow,
  endUnbornUpload,
  findUpload,
  makeUpload,
  type UnbornUpload,
  type Upload,
  unbornIsOpen,
} from '#shared/db/uploads.ts'
import { RegistryError } from '#shared/errors.ts'
import type { Digest, DigestAlgorithm } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { abandonUpload } from './commit-upload.ts'
import type { Registry } from './registry.ts'
import type { UploadReference, UploadTarget } from './upload-ids.ts'

export interface UploadPosition {
  readonly id: string
  readonly size: number
}

/**
 * Opens a session. Returns 429 if the repository has too many open. If the row is created later, the first body gets
 * the 429.
 */
export async function openUpload(
  registry: Registry,
  options: { repository: RepositoryName; algorithm: DigestAlgorithm; provenance: Provenance },
): Promise<UploadPosition> {
  await registry.requireDatabaseRoom()
  const { id, unborn } = await registry.uploadIds.begin(options)
  if (registry.olderReleases.retired()) return { id, size: 0 }
  // The next request may reach a node that does not know such ids.
  await makeRow(registry, { unborn, small: null, actor: options.provenance.actor })
  return { id: registry.uploadIds.ofRow(unborn.id, { small: false }), size: 0 }
}

/**
 * Returns the session's position. Returns 404 BLOB_UPLOAD_UNKNOWN if the session does not belong to this repository.
 */
export async function uploadPosition(registry: Registry, target: UploadTarget): Promise<UploadPosition> {
  const upload = await requireSession(registry, await requireReference(registry, target), target)
  if ('unborn' in upload) return { id: target.id, size: 0 }
  return positionOf(registry, upload.row, upload.row.session.size, upload.row.bytes !== null)
}

/** Ends a session and drops its bytes. */
export async function cancelUpload(registry: Registry, target: UploadTarget): Promise<void> {
  const { uuid: id, unborn } = await requireReference(registry, target)
  const upload = await cancelUploadRow(registry.db, { id, repository: target.repository })
  if (upload === undefined) {
    if (unborn !== undefined && (await endUnbornUpload(registry.db, unborn))) return
    throw new RegistryError('BLOB_UPLOAD_UNKNOWN')
  }
  registry.reach('upload-cancelled')
  await abandonUpload(registry, upload)
}

/**
 * Call it before any byte is read.
 * @throws StoreError if uploads have to wait
 */
export async function requireRoom(registry: Registry): Promise<void> {
  await registry.requireDatabaseRoom()
  await registry.ownership.require()
}

/**
 * Returns what the id says.
 * @throws RegistryError BLOB_UPLOAD_UNKNOWN if this region never gave it out for the repository
 */
export async function requireReference(registry: Registry, target: UploadTarget): Promise<UploadReference> {
  const reference = await registry.uploadIds.read(target)
  if (reference === undefined) throw new RegistryError('BLOB_UPLOAD_UNKNOWN')
  return reference
}

/**
 * Returns the session, with its row if it has one.
 * @throws RegistryError BLOB_UPLOAD_UNKNOWN if it has ended or expired
 */
export async function requireSession(
  registry: Registry,
  { uuid: id, unborn }: UploadReference,
  { repository }: UploadTarget,
): Promise<{ row: Upload } | { unborn: UnbornUpload }> {
  const row = await findUpload(registry.db, { id, repository })
  if (row !== undefined) return { row }
  if (unborn === undefined || !(await unbornIsOpen(registry.db, unborn)))
    throw new RegistryError('BLOB_UPLOAD_UNKNOWN')
  return { unborn }
}

/**
 * Creates the session's row. Returns undefined if it already has one or has ended. `small`: the whole first body.
 * @throws RegistryError TOOMANYREQUESTS, or BLOB_UPLOAD_UNKNOWN if its Location is no longer valid
 */
export async function makeRow(
  registry: Registry,
  options: { unborn: UnbornUpload; small: { bytes: Buffer; digest: Digest } | null; actor: string },
): Promise<Upload | undefined> {
  const { unborn, small, actor } = options
  const { uploadTtlSeconds: ttlSeconds, uploadsPerRepositoryMax: openMax } = registry.limits
  const { name: store } = small === null ? registry.blobs : registry.smallBlobs.store
  const made = await makeUpload(registry.db, {
    unborn,
    small,
    actor,
    region: registry.name,
    store,
    ttlSeconds,
    openMax,
  })
  if (made === 'unknown') throw new RegistryError('BLOB_UPLOAD_UNKNOWN')
  if (made === 'full') {
    throw new RegistryError('TOOMANYREQUESTS', {
      message: 'too many uploads are open in this repository: finish or cancel some',
      headers: { 'Retry-After': '60' },
    })
  }
  if (made === 'there') return undefined
  const { id, repository, algorithm } = unborn
  const common = { id, repository, store, algorithm }
  if (small === null) return { ...common, attempt: 0, session: EMPTY_SESSION, bytes: null }
  const { bytes, digest } = small
  return { ...common, attempt: 1, session: { size: bytes.length, digest, parts: [] }, bytes }
}

/** Returns the position of a session that has a row. */
export function positionOf(registry: Registry, { id }: Upload, size: number, small: boolean): UploadPosition {
  return { id: registry.uploadIds.ofRow(id, { small }), size }
}
