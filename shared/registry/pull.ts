// Pulling: what a reference currently is in a repository, and its bytes.
//
// Existence is read exactly (db/snapshot-reader.ts). Bytes come from memory or the store. If the bytes cannot be
// reached, the answer is UNAVAILABLE. If the bytes are proved lost or wrong, the answer is BLOB_UNKNOWN, because that
// makes clients send them again (blob-health.ts).

import { type BlobStore, type ByteSink, type ObjectStat, StoreError } from '#shared/blobs/blob-store.ts'
import { WrongContentError } from '#shared/blobs/proving-sink.ts'
import { blobPlace } from '#shared/db/blobs.ts'
import type { FoundBlob, FoundManifest } from '#shared/db/lookups.ts'
import { fillInFacts } from '#shared/db/manifests.ts'
import { repositoryExists } from '#shared/db/repositories.ts'
import { RegistryError } from '#shared/errors.ts'
import { algorithmOf, type Digest, digestBytes } from '#shared/oci/digest.ts'
import { type ManifestFacts, manifestFacts, parseManifest } from '#shared/oci/manifest.ts'
import type { RepositoryName, Tag } from '#shared/oci/reference.ts'
import { blobDamaged } from './blob-health.ts'
import type { Registry } from './registry.ts'

export interface PulledManifest {
  readonly digest: Digest
  readonly mediaType: string
  readonly bytes: Buffer
  /** undefined for a manifest that was stored by a release which kept no facts. */
  readonly facts: ManifestFacts | undefined
}

export type ManifestReference =
  | { readonly kind: 'tag'; readonly tag: Tag }
  | { readonly kind: 'digest'; readonly digest: Digest }

/** Returns 404 NAME_UNKNOWN or MANIFEST_UNKNOWN if the repository does not hold it. */
export async function pullManifest(
  registry: Registry,
  options: { repository: RepositoryName; reference: ManifestReference },
): Promise<PulledManifest> {
  const { repository, reference } = options
  const found = await findManifest(registry, options)
  if (found === undefined) {
    const code = (await repositoryExists(registry.reads, repository)) ? 'MANIFEST_UNKNOWN' : 'NAME_UNKNOWN'
    throw new RegistryError(code, {
      details: [reference.kind === 'tag' ? { tag: reference.tag } : { digest: reference.digest }],
    })
  }
  const stored = registry.manifests.peek(found.digest) ?? (await registry.manifests.get(found.digest))
  if (stored === undefined) throw missingBytes(found.digest)
  return { digest: found.digest, mediaType: found.mediaType, bytes: stored.bytes, facts: stored.facts }
}

/**
 * Returns the image that represents an index for a client that can use only a single image, or undefined if the
 * repository has none.
 */
export async function pullSingleImage(
  registry: Registry,
  options: { repository: RepositoryName; index: PulledManifest },
): Promise<PulledManifest | undefined> {
  const { repository, index } = options
  const { singleImage } = index.facts ?? (await findFacts(registry, index))
  if (singleImage === undefined) return undefined
  const reference = { kind: 'digest', digest: singleImage } as const
  const held = await findManifest(registry, { repository, reference })
  return held === undefined ? undefined : pullManifest(registry, { repository, reference })
}

/**
 * Finds the facts of a manifest that was stored without them. The manifest is parsed once. The facts are put into
 * memory before any other request runs, and into the row. If the row cannot be written, the request still succeeds. A
 * manifest that does not satisfy today's rules has no facts and is still served.
 */
async function findFacts(
  registry: Registry,
  { digest, bytes, mediaType }: PulledManifest,
): Promise<ManifestFacts> {
  const known = registry.manifests.peek(digest)?.facts
  if (known !== undefined) return known
  const facts = factsOf(bytes, mediaType)
  registry.manifests.keep(digest, { bytes, facts })
  try {
    await fillInFacts(registry.db, digest, facts)
  } catch (error) {
    registry.log.warn(
      { error, digest },
      'what was found in a manifest of an older release could not be stored',
    )
  }
  return facts
}

function factsOf(bytes: Buffer, mediaType: string): ManifestFacts {
  try {
    return manifestFacts(parseManifest(bytes, mediaType, { descriptorsMax: Number.MAX_SAFE_INTEGER }))
  } catch (thrown) {
    if (thrown instanceof RegistryError) return { singleImage: undefined }
    throw thrown
  }
}

export async function findManifest(
  registry: Registry,
  options: { repository: RepositoryName; reference: ManifestReference },
): Promise<FoundManifest | undefined> {
  const { repository, reference } = options
  const found = await registry.lookups.read(
    reference.kind === 'tag'
      ? { repository, kind: 'tag', reference: reference.tag }
      : { repository, kind: 'manifest', reference: reference.digest },
  )
  return found?.kind === 'manifest' ? found : undefined
}

/**
 * Returns a blob of this repository, or undefined if the repository does not hold the digest, even if others do.
 * @throws RegistryError BLOB_UNKNOWN if its bytes are known to be damaged
 */
export async function findBlob(
  registry: Registry,
  options: { repository: RepositoryName; digest: Digest },
): Promise<FoundBlob | undefined> {
  const found = await registry.lookups.read({
    repository: options.repository,
    kind: 'blob',
    reference: options.digest,
  })
  if (found?.kind !== 'blob') return undefined
  if (found.damaged) throw blobDamaged(found.digest)
  return found
}

/**
 * For HEAD: clients skip an upload because of its answer.
 * @throws RegistryError BLOB_UNKNOWN if the object does not exist
 */
export async function requireObject(registry: Registry, blob: FoundBlob): Promise<void> {
  if (!(await registry.blobHealth.isThere(blob))) throw blobDamaged(blob.digest)
}

/**
 * Returns a blob's bytes if they are small enough to be served from memory. They are read at most once, and checked
 * then, because they are served from memory for as long as clients ask for them.
 */
export function smallBlobBytes(registry: Registry, blob: FoundBlob): Promise<Buffer> | undefined {
  if (blob.size > registry.blobCache.entryBytesMax) return undefined
  return registry.blobCache.get(blob.key, () => readProved(registry, blob))
}

/** Reads wrong content once more: usually the transfer damaged it, not the store. */
async function readProved(registry: Registry, blob: FoundBlob): Promise<Buffer> {
  try {
    for (let reads = 1; ; reads++) {
      const bytes = await whereItIs(registry, blob, ({ store, key }) => store.read(key, blob.size))
      if (digestBytes(algorithmOf(blob.digest), bytes) === blob.digest) return bytes
      if (reads === 2) throw new WrongContentError(blob.digest)
    }
  } catch (thrown) {
    throw await readFailure(registry, blob, thrown)
  }
}

/**
 * Returns a temporary URL at which the object store itself serves the blob, or undefined if this server must send it.
 */
export async function blobUrl(registry: Registry, blob: FoundBlob): Promise<string | undefined> {
  return (await registry.stores.named(blob.store)).url(blob.key)
}

/**
 * Returns the path at which a proxy that reads the blob's store itself finds the blob, or undefined if this server must
 * send it.
 */
export async function blobProxyPath(registry: Registry, blob: FoundBlob): Promise<string | undefined> {
  return (await registry.stores.named(blob.store)).proxyPath(blob.key)
}

/**
 * Sends bytes start..end (inclusive) of a blob to the sink. Sends all of them or rejects. For a whole blob, the last
 * bytes are sent only if all bytes have its digest. Pass a rejection through `readFailure` before answering with it.
 */
export async function sendBlob(
  registry: Registry,
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
    registry,
    blob,
    async ({ store, key }) => {
      const version = store.statIsLocal ? versionOf(await store.stat(key), blob) : undefined
      const whole = range.start === 0 && range.end === blob.size - 1
      if (!whole) return store.send(key, range, noting, signal)
      return registry.blobHealth.sendProved(blob, { store, key, version }, noting, signal)
    },
    () => !begun,
  )
}

/** Checked before the response head is sent, so that a lost blob is an error response and not a broken connection. */
function versionOf(found: ObjectStat | undefined, blob: FoundBlob): string | undefined {
  if (found === undefined) throw new StoreError('missing', `the object of ${blob.digest} is not there`)
  if (found.size !== blob.size) {
    throw new StoreError('corrupt', `the object of ${blob.digest} has ${found.size} bytes, not ${blob.size}`)
  }
  return found.version
}

/**
 * Returns the error with which to answer a failed read of a blob. It is BLOB_UNKNOWN if a second check finds the object
 * damaged; the blob is then marked. Otherwise it is the failure itself. A check of a large blob's content takes as long
 * as reading it.
 */
export async function readFailure(registry: Registry, blob: FoundBlob, thrown: unknown): Promise<unknown> {
  if (!(thrown instanceof StoreError) || (thrown.kind !== 'missing' && thrown.kind !== 'corrupt'))
    return thrown
  const verdict = await registry.blobHealth.examine(blob, { content: thrown.kind === 'corrupt' })
  return verdict === 'damaged' ? blobDamaged(blob.digest) : thrown
}

/**
 * Runs the function with the place that the row named. If the blob has moved meanwhile, runs it once more with the
 * place that the row names now.
 */
async function whereItIs<T>(
  registry: Registry,
  blob: FoundBlob,
  work: (place: { store: BlobStore; key: string }) => Promise<T>,
  mayRepeat: () => boolean = () => true,
): Promise<T> {
  try {
    return await work({ store: await registry.stores.named(blob.store), key: blob.key })
  } catch (thrown) {
    if (!(thrown instanceof StoreError) || thrown.kind !== 'missing' || !mayRepeat()) throw thrown
    const now = await blobPlace(registry.reads, blob.digest)
    if (now === undefined || now.key === blob.key) throw thrown
    return work({ store: await registry.stores.named(now.store), key: now.key })
  }
}

function missingBytes(digest: Digest): RegistryError {
  return new RegistryError('UNAVAILABLE', {
    message: 'the bytes of this content are out of reach',
    details: [{ digest }],
    headers: { 'Retry-After': '5' },
  })
}
