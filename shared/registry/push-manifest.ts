// Pushing a manifest: the checks that need no database, in the order clients rely on, then the one statement that is
// the commit point (db/push-manifest.ts).

import type { Provenance } from '#shared/db/provenance.ts'
import { type ManifestPush, type PushedReference, pushManifestRow } from '#shared/db/push-manifest.ts'
import { ensureRepository } from '#shared/db/repositories.ts'
import { RegistryError } from '#shared/errors.ts'
import { algorithmOf, type Digest, digestBytes } from '#shared/oci/digest.ts'
import { type Manifest, parseManifest } from '#shared/oci/manifest.ts'
import { type RepositoryName, shardOf, type Tag } from '#shared/oci/reference.ts'
import type { Region, Sparse } from '#shared/region.ts'
import type { ManifestReference } from '#shared/registry/pull.ts'

/** Config, layers, children and subject of one manifest. Real ones have tens; more than this is an attack. */
const DESCRIPTORS_MAX = 10_000
/** Each try can lose against a delete of the repository that came between; four in a row is not bad luck. */
const TRIES_MAX = 4

export interface PushedManifest {
  readonly digest: Digest
  readonly subject: Digest | undefined
  readonly outboxId: number
}

export interface ManifestConditions {
  /** Digests of If-Match, or '*' alone for "must exist"; undefined: no such header. */
  readonly ifMatch?: readonly string[]
  /** If-None-Match: * */
  readonly ifNoneMatch?: boolean
}

/**
 * Stores the bytes as they are, links them and moves the tags. Errors: DIGEST_INVALID, MANIFEST_INVALID,
 * MANIFEST_BLOB_UNKNOWN with every missing digest, PRECONDITION_FAILED.
 */
export async function pushManifest(
  region: Region,
  options: {
    repository: RepositoryName
    reference: ManifestReference
    /** More tags for a push by digest. */
    tags: readonly Tag[]
    contentType: string | undefined
    bytes: Buffer
    conditions: ManifestConditions
    provenance: Provenance
  },
): Promise<PushedManifest> {
  const { repository, reference, contentType, bytes, conditions, provenance } = options
  const digest = checkedDigest(reference, bytes)
  const manifest = parseManifest(bytes, contentType, { descriptorsMax: DESCRIPTORS_MAX })
  const tags = [...new Set(reference.kind === 'tag' ? [reference.tag, ...options.tags] : options.tags)]
  const push: ManifestPush = {
    repository,
    shard: shardOf(repository),
    origin: region.name,
    digest,
    bytes,
    mediaType: manifest.mediaType,
    references: references(manifest, region.limits.sparse),
    artifactType: manifest.artifactType ?? null,
    annotations: manifest.annotations ?? null,
    tags,
    facts: facts(manifest, { repository, digest, size: bytes.length }),
    ifMatch: conditions.ifMatch ?? null,
    ifNoneMatch: conditions.ifNoneMatch ?? false,
    provenance,
  }
  const outboxId = await commit(region, push)
  region.reach('manifest-committed')
  region.manifests.keep(digest, bytes)
  return { digest, subject: manifest.subject?.digest, outboxId }
}

function checkedDigest(reference: ManifestReference, bytes: Buffer): Digest {
  if (reference.kind === 'tag') return digestBytes('sha256', bytes)
  const actual = digestBytes(algorithmOf(reference.digest), bytes)
  if (actual === reference.digest) return actual
  throw new RegistryError('DIGEST_INVALID', {
    message: 'the manifest does not have the digest it is pushed by',
    details: [{ digest: reference.digest, actual }],
  })
}

async function commit(region: Region, push: ManifestPush): Promise<number> {
  for (let tries = 1; tries <= TRIES_MAX; tries++) {
    const outcome = await run(region, push)
    switch (outcome.kind) {
      case 'pushed':
        return outcome.outboxId
      case 'repository-missing':
        // Made only for a push that can succeed: one whose references are missing must leave no empty repository.
        if (push.references.some(({ mandatory }) => mandatory))
          throw referencesMissing(mandatoryDigests(push))
        await ensureRepository(region.db, { name: push.repository, origin: region.name })
        break
      case 'references-missing':
        throw referencesMissing(outcome.digests)
      case 'media-type-differs':
        throw new RegistryError('MANIFEST_INVALID', {
          message: 'this repository holds the same bytes under another media type',
        })
      case 'condition-failed':
        throw new RegistryError('PRECONDITION_FAILED')
    }
  }
  throw new RegistryError('UNAVAILABLE', {
    message: 'the repository is being deleted again and again: try later',
    headers: { 'Retry-After': '1' },
  })
}

class ConditionFailed extends Error {}

/** A push with a condition runs in a transaction, because the membership is written before the tag is looked at. */
async function run(region: Region, push: ManifestPush) {
  if (push.ifMatch === null && !push.ifNoneMatch) return pushManifestRow(region.db, push)
  try {
    return await region.db.transaction(
      async (transaction) => {
        const outcome = await pushManifestRow(transaction, push)
        if (outcome.kind === 'condition-failed') throw new ConditionFailed()
        return outcome
      },
      { repository: push.repository },
    )
  } catch (thrown) {
    if (thrown instanceof ConditionFailed) return { kind: 'condition-failed' as const }
    throw thrown
  }
}

function mandatoryDigests(push: ManifestPush): Digest[] {
  return [...new Set(push.references.filter(({ mandatory }) => mandatory).map(({ digest }) => digest))]
}

/** One entry per digest: clients re-push exactly what is listed. */
function referencesMissing(digests: readonly Digest[]): RegistryError {
  return new RegistryError('MANIFEST_BLOB_UNKNOWN', { details: digests.map((digest) => ({ digest })) })
}

function references(manifest: Manifest, sparse: Sparse): PushedReference[] {
  const listed = manifest.references.map(({ kind, target, position, digest, foreign }) => ({
    kind,
    target,
    position,
    digest,
    mandatory: !foreign && !mayBeAbsent(kind, sparse),
    required: !foreign,
  }))
  if (manifest.subject === undefined) return listed
  const { digest } = manifest.subject
  return [
    ...listed,
    { kind: 'subject', target: 'manifest', position: 0, digest, mandatory: false, required: false },
  ]
}

function mayBeAbsent(kind: PushedReference['kind'], sparse: Sparse): boolean {
  return sparse === 'all' || (sparse === 'index' && kind === 'child')
}

/** What events tell about the manifest itself; descriptors only, never its free text. */
function facts(
  manifest: Manifest,
  about: { repository: RepositoryName; digest: Digest; size: number },
): Record<string, unknown> {
  return {
    ...about,
    mediaType: manifest.mediaType,
    ...(manifest.artifactType !== undefined && { artifactType: manifest.artifactType }),
    ...(manifest.subject !== undefined && { subject: manifest.subject.digest }),
    references: manifest.references.map(({ kind, mediaType, digest, size, foreign }) => ({
      kind,
      mediaType,
      digest,
      size,
      ...(foreign && { foreign }),
    })),
  }
}
