// Pulling: what a reference is in a repository right now, and its bytes.
//
// What exists is read exactly (db/snapshot-reader.ts); bytes come from memory or the store. Bytes that are out of reach
// answer UNAVAILABLE. Bytes that are proved to be lost or wrong answer BLOB_UNKNOWN, because that makes clients send
// them again (blob-health.ts).

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
  /** Undefined for one that a release which kept no facts stored. */
  readonly facts: ManifestFacts | undefined
}

export type ManifestReference =
  | { readonly kind: 'tag'; readonly tag: Tag }
  | { readonly kind: 'digest'; readonly digest: Digest }

/** 404 NAME_UNKNOWN or MANIFEST_UNKNOWN when the repository does not hold it. */
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

/** The image that stands for an index where its client can use a single image only; undefined: the repository has none. */
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
 * The facts of a manifest that was stored without them. It is parsed once: what is found is kept in memory before anybody
 * else has a turn, and in its row. That the row cannot be written spoils no answer. A manifest that today's rules refuse
 * has no facts and is served all the same.
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
 * A blob of this repository; undefined when it holds none by that digest, whoever else does.
 * @throws RegistryError BLOB_UNKNOWN when its bytes are known to be damaged
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

/** For HEAD, on whose word clients skip an upload. @throws RegistryError BLOB_UNKNOWN when the object is not there */
export async function requireObject(registry: Registry, blob: FoundBlob): Promise<void> {
  if (!(await registry.blobHealth.isThere(blob))) throw blobDamaged(blob.digest)
}

/**
 * A blob's bytes when they are small enough to be served from memory, read at most once; checked then, because what is
 * in memory is served for as long as it is asked for.
 */
export function smallBlobBytes(registry: Registry, blob: FoundBlob): Promise<Buffer> | undefined {
  if (blob.size > registry.blobCache.entryBytesMax) return undefined
  return registry.blobCache.get(blob.key, () => readProved(registry, blob))
}

/** Reads once more what came wrong: most of the time it is the way that harmed it, not the store. */
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

/** Where the object store itself serves the blob for a while; undefined: it has to go through here. */
export async function blobUrl(registry: Registry, blob: FoundBlob): Promise<string | undefined> {
  return (await registry.stores.named(blob.store)).url(blob.key)
}

/** Where a proxy that reads the blob's store itself finds it there; undefined: it has to go through here. */
export async function blobProxyPath(registry: Registry, blob: FoundBlob): Promise<string | undefined> {
  return (await registry.stores.named(blob.store)).proxyPath(blob.key)
}

/**
 * Bytes start..end (inclusive) of a blob to the sink: all of them, or it rejects. Of a whole blob the last bytes leave
 * only when all have its digest. What it rejects with goes through `readFailure` before it is answered.
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

/** Looked at before the head is sent, so that a lost blob is an answer and not a broken connection. */
function versionOf(found: ObjectStat | undefined, blob: FoundBlob): string | undefined {
  if (found === undefined) throw new StoreError('missing', `the object of ${blob.digest} is not there`)
  if (found.size !== blob.size) {
    throw new StoreError('corrupt', `the object of ${blob.digest} has ${found.size} bytes, not ${blob.size}`)
  }
  return found.version
}

/**
 * What a failed read of a blob is to be answered with: BLOB_UNKNOWN when a second look finds the object damaged, and
 * the blob is then marked; else the failure itself. A look at a large blob's content takes as long as reading it.
 */
export async function readFailure(registry: Registry, blob: FoundBlob, thrown: unknown): Promise<unknown> {
  if (!(thrown instanceof StoreError) || (thrown.kind !== 'missing' && thrown.kind !== 'corrupt'))
    return thrown
  const verdict = await registry.blobHealth.examine(blob, { content: thrown.kind === 'corrupt' })
  return verdict === 'damaged' ? blobDamaged(blob.digest) : thrown
}

/** Does it with the place the row named, and once more with the place it names now, if the blob has moved meanwhile. */
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
