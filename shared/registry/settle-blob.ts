// After a blob's commit: checks which object the row names, and whether that object is sound.
//
// A commit keeps the object of an earlier upload of the same digest. That object may be gone: a disk was restored, a
// file deleted, a bucket emptied. The new upload has the right bytes, so the old object is checked, and if it is not
// proved, the row is changed to the new object. A push therefore repairs what was lost, whether or not the loss was
// noticed.
//
// The check comes after the commit, because only the statement knows whose object it kept, and this way a new digest
// costs no extra statement. If the process dies in between, no client was told 201 and the row is no worse than before.
// Keys are never reused, so a late removal of an old key cannot remove anything that a row names.

import { type BlobStore, type StoredObject, StoreError } from '#shared/blobs/blob-store.ts'
import { type BlobPlace, blobPlace, replaceBlob } from '#shared/db/blobs.ts'
import { RegistryError } from '#shared/errors.ts'
import type { Registry } from './registry.ts'

/** If another process repairs or moves the row at the same moment, it is checked again. The tries are bounded. */
const TRIES_MAX = 4

/**
 * Returns true if the row names our object, and false if it names another that is sound; our object is then surplus. A
 * store that does not answer, or is not configured here, proves nothing. Our object was seen a moment ago.
 * @throws RegistryError UNAVAILABLE if the row changes again and again; our object is removed
 */
export async function settleBlob(
  registry: Registry,
  options: { store: BlobStore; object: StoredObject; kept: BlobPlace; replaced: BlobPlace | undefined },
): Promise<boolean> {
  const { store, object, replaced } = options
  const { digest, size } = object
  if (replaced !== undefined) await removeDead(registry, replaced)
  let kept: BlobPlace | undefined = options.kept
  for (let tries = 1; tries <= TRIES_MAX && kept !== undefined; tries++) {
    if (kept.store === store.name && kept.key === object.key) return true
    const verdict = await registry.blobHealth.examine({ digest, size, ...kept }, { content: false })
    if (verdict === 'sound') return false
    if (await replaceBlob(registry.db, { from: kept, store: store.name, object })) {
      registry.log.info({ digest, ...kept }, 'an upload replaced the lost bytes of a blob')
      await removeDead(registry, kept)
      return true
    }
    kept = await blobPlace(registry.db, digest)
  }
  await store.remove([object.key])
  throw new RegistryError('UNAVAILABLE', {
    message: 'the blob is being changed again and again: try later',
    headers: { 'Retry-After': '1' },
  })
}

/** The row is committed. Bytes that cannot be removed now are left to the sweep. */
async function removeDead(registry: Registry, { store, key }: BlobPlace): Promise<void> {
  try {
    await (await registry.stores.named(store)).remove([key])
  } catch (thrown) {
    if (!(thrown instanceof StoreError)) throw thrown
    registry.log.warn({ error: thrown, store, key }, 'replaced bytes could not be removed')
  }
}
