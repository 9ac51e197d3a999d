// Pulling: what a reference is in a repository right now, and its bytes.
//
// What exists is read exactly (db/snapshot-reader.ts); bytes come from memory or the store. A row without its bytes
// is a broken promise and answers UNAVAILABLE, never "unknown": clients delete what they are told is unknown.

import { type BlobStore, type ByteSink, StoreError } from '#shared/blobs/blob-store.ts'
import { blobPlace } from '#shared/db/blobs.ts'
import type { FoundBlob, FoundManifest } from '#shared/db/lookups.ts'
import { repositoryExists } from '#shared/db/repositories.ts'
import { RegistryError } from '#shared/errors.ts'
import { algorithmOf, type Digest, digestBytes } from '#shared/oci/digest.ts'
import type { RepositoryName, Tag } from '#shared/oci/reference.ts'
import type { Region } from '#shared/region.ts'

export interface PulledManifest {
  readonly digest: Digest
  readonly mediaType: string
  readonly bytes: Buffer
}

export type ManifestReference =
  | { readonly kind: 'tag'; readonly tag: Tag }
  | { readonly kind: 'digest'; readonly digest: Digest }

/** 404 NAME_UNKNOWN or MANIFEST_UNKNOWN when the repository does not hold it. */
export async function pullManifest(
  region: Region,
  options: { repository: RepositoryName; reference: ManifestReference },
): Promise<PulledManifest> {
  const { repository, reference } = options
  const found = await findManifest(region, options)
  if (found === undefined) {
    const code = (await repositoryExists(region.reads, repository)) ? 'MANIFEST_UNKNOWN' : 'NAME_UNKNOWN'
    throw new RegistryError(code, {
      details: [reference.kind === 'tag' ? { tag: reference.tag } : { digest: reference.digest }],
    })
  }
  const bytes = region.manifests.peek(found.digest) ?? (await region.manifests.get(found.digest))
  if (bytes === undefined) throw missingBytes(found.digest)
  return { digest: found.digest, mediaType: found.mediaType, bytes }
}

export async function findManifest(
  region: Region,
  options: { repository: RepositoryName; reference: ManifestReference },
): Promise<FoundManifest | undefined> {
  const { repository, reference } = options
  const found = await region.lookups.read(
    reference.kind === 'tag'
      ? { repository, kind: 'tag', reference: reference.tag }
      : { repository, kind: 'manifest', reference: reference.digest },
  )
  return found?.kind === 'manifest' ? found : undefined
}

/** A blob of this repository; undefined when it holds none by that digest, whoever else does. */
export async function findBlob(
  region: Region,
  options: { repository: RepositoryName; digest: Digest },
): Promise<FoundBlob | undefined> {
  const found = await region.lookups.read({
    repository: options.repository,
    kind: 'blob',
    reference: options.digest,
  })
  return found?.kind === 'blob' ? found : undefined
}

/**
 * A blob's bytes when they are small enough to be served from memory, read at most once; checked then, because what is
 * in memory is served for as long as it is asked for.
 */
export function smallBlobBytes(region: Region, blob: FoundBlob): Promise<Buffer> | undefined {
  if (blob.size > region.blobCache.entryBytesMax) return undefined
  return region.blobCache.get(blob.key, async () => {
    const bytes = await whereItIs(region, blob, ({ store, key }) => store.read(key, blob.size))
    if (digestBytes(algorithmOf(blob.digest), bytes) === blob.digest) return bytes
    throw new StoreError('corrupt', `the bytes of ${blob.digest} are not what was pushed`)
  })
}

/** Where the object store itself serves the blob for a while; undefined: it has to go through here. */
export async function blobUrl(region: Region, blob: FoundBlob): Promise<string | undefined> {
  return (await region.stores.named(blob.store)).url(blob.key)
}

/** Bytes start..end (inclusive) of a blob to the sink: all of them, or it rejects. */
export async function sendBlob(
  region: Region,
  blob: FoundBlob,
  range: { start: number; end: number },
  sink: ByteSink,
  signal: AbortSignal,
): Promise<void> {
  let begun = false
  const noting: ByteSink = {
    write(chunk) {
      begun = true
      return sink.write(chunk)
    },
    ...(sink.writeAll !== undefined && {
      writeAll(chunks: readonly Buffer[]) {
        begun = true
        return sink.writeAll?.(chunks) ?? Promise.resolve()
      },
    }),
  }
  await whereItIs(
    region,
    blob,
    ({ store, key }) => store.send(key, range, noting, signal),
    () => !begun,
  )
}

/** Does it with the place the row named, and once more with the place it names now, if the blob has moved meanwhile. */
async function whereItIs<T>(
  region: Region,
  blob: FoundBlob,
  work: (place: { store: BlobStore; key: string }) => Promise<T>,
  mayRepeat: () => boolean = () => true,
): Promise<T> {
  try {
    return await work({ store: await region.stores.named(blob.store), key: blob.key })
  } catch (thrown) {
    if (!(thrown instanceof StoreError) || thrown.kind !== 'missing' || !mayRepeat()) throw thrown
    const now = await blobPlace(region.reads, blob.digest)
    if (now === undefined || now.key === blob.key) throw thrown
    return work({ store: await region.stores.named(now.store), key: now.key })
  }
}

function missingBytes(digest: Digest): RegistryError {
  return new RegistryError('UNAVAILABLE', {
    message: 'the bytes of this content are out of reach',
    details: [{ digest }],
    headers: { 'Retry-After': '5' },
  })
}
