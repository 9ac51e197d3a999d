// Pushing a manifest: the checks that need no database, in the order that clients rely on, then the one statement that
// is the commit point (db/push-manifest.ts).
//
// Conditions apply to what the request names: the tag in its path, or each tag in `?tag=` if the path has a digest.
// Without tags they apply to the digest itself. They are evaluated twice. If one fails before the push, the request
// fails and nothing is written. If all hold, they are evaluated again after the push has locked what it replaces, in
// the same transaction, because another push may have come between.

import { overwrittenByPush } from '#shared/db/overwritten.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import { type ManifestPush, type PushedReference, pushManifestRow } from '#shared/db/push-manifest.ts'
import type { WritePosition } from '#shared/db/registers.ts'
import { RegistryError } from '#shared/errors.ts'
import { mayReplace, type WriteConditions } from '#shared/oci/conditional.ts'
import { algorithmOf, type Digest, digestBytes } from '#shared/oci/digest.ts'
import { type Manifest, manifestFacts, parseManifest } from '#shared/oci/manifest.ts'
import { type RepositoryName, shardOf, type Tag } from '#shared/oci/reference.ts'
import { findManifest, type ManifestReference } from '#shared/registry/pull.ts'
import { inRepository } from './in-repository.ts'
import type { Limits, Registry } from './registry.ts'

/**
 * Maximum number of descriptors (config, layers, children and subject) of one manifest. Real manifests have tens. A
 * larger one is an attack.
 */
const DESCRIPTORS_MAX = 10_000

export interface PushedManifest {
  readonly digest: Digest
  readonly subject: Digest | undefined
  readonly position: WritePosition
}

/**
 * Stores the bytes unchanged, links them and moves the tags. Errors: DIGEST_INVALID, MANIFEST_INVALID,
 * MANIFEST_BLOB_UNKNOWN with every missing digest, PRECONDITION_FAILED.
 */
export async function pushManifest(
  registry: Registry,
  options: {
    repository: RepositoryName
    reference: ManifestReference
    /** Additional tags for a push by digest. */
    tags: readonly Tag[]
    contentType: string | undefined
    bytes: Buffer
    conditions: WriteConditions
    provenance: Provenance
  },
): Promise<PushedManifest> {
  const { repository, reference, contentType, bytes, conditions, provenance } = options
  await registry.requireDatabaseRoom()
  const digest = checkedDigest(reference, bytes)
  const manifest = parseManifest(bytes, contentType, { descriptorsMax: DESCRIPTORS_MAX })
  const kept = manifestFacts(manifest)
  const tags = [...new Set(reference.kind === 'tag' ? [reference.tag, ...options.tags] : options.tags)]
  const push: ManifestPush = {
    repository,
    shard: shardOf(repository),
    origin: registry.name,
    digest,
    bytes,
    mediaType: manifest.mediaType,
    references: references(manifest, registry.limits.sparse),
    artifactType: manifest.artifactType ?? null,
    annotations: manifest.annotations ?? null,
    tags,
    singleImage: kept.singleImage,
    facts: facts(manifest, { repository, digest, size: bytes.length }),
    manifestFacts: descriptorFacts(manifest),
    provenance,
  }
  const position = await commit(registry, {
    push,
    conditions,
    judged: reference.kind === 'tag' ? [reference.tag] : tags,
  })
  registry.reach('manifest-committed')
  registry.manifests.keep(digest, { bytes, facts: kept })
  return { digest, subject: manifest.subject?.digest, position }
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

interface Commit {
  readonly push: ManifestPush
  readonly conditions: WriteConditions
  /** The tags to which the conditions apply. If empty, they apply to the digest. */
  readonly judged: readonly Tag[]
}

async function commit(registry: Registry, options: Commit): Promise<WritePosition> {
  const { push, conditions } = options
  const outcome = await inRepository(registry, {
    repository: push.repository,
    write: () => run(registry, options),
    mayCreate() {
      // Nothing can match, and a repository is not created for a push that must fail.
      if (conditions.ifMatch !== undefined) throw new RegistryError('PRECONDITION_FAILED')
      // A push whose references are missing must leave no empty repository.
      if (push.references.some(({ mandatory }) => mandatory)) throw referencesMissing(mandatoryDigests(push))
    },
  })
  switch (outcome.kind) {
    case 'pushed':
      return outcome.position
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

class ConditionFailed extends Error {}

async function run(registry: Registry, options: Commit) {
  const { push, conditions, judged } = options
  if (conditions.ifMatch === undefined && conditions.ifNoneMatch === undefined) {
    return pushManifestRow(registry.db, push)
  }
  const failed = { kind: 'condition-failed' } as const
  const holds = (there: readonly (Digest | undefined)[]) => there.every((one) => mayReplace(one, conditions))
  if (!holds(await thereNow(registry, options))) return failed
  const { repository, digest } = push
  try {
    return await registry.db.transaction(
      async (transaction) => {
        const outcome = await pushManifestRow(transaction, push)
        if (outcome.kind !== 'pushed') return outcome
        const there = await overwrittenByPush(transaction, { repository, digest, tags: judged })
        if (!holds(there)) throw new ConditionFailed()
        return outcome
      },
      { repository },
    )
  } catch (thrown) {
    if (thrown instanceof ConditionFailed) return failed
    throw thrown
  }
}

function thereNow(registry: Registry, { push, judged }: Commit): Promise<(Digest | undefined)[]> {
  const { repository, digest } = push
  const references: ManifestReference[] =
    judged.length === 0 ? [{ kind: 'digest', digest }] : judged.map((tag) => ({ kind: 'tag', tag }))
  return Promise.all(
    references.map(async (reference) => (await findManifest(registry, { repository, reference }))?.digest),
  )
}

function mandatoryDigests(push: ManifestPush): Digest[] {
  return [...new Set(push.references.filter(({ mandatory }) => mandatory).map(({ digest }) => digest))]
}

/** One entry per digest: clients push again exactly what is listed. */
function referencesMissing(digests: readonly Digest[]): RegistryError {
  return new RegistryError('MANIFEST_BLOB_UNKNOWN', { details: digests.map((digest) => ({ digest })) })
}

function references(manifest: Manifest, sparse: Limits['sparse']): PushedReference[] {
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

function mayBeAbsent(kind: PushedReference['kind'], sparse: Limits['sparse']): boolean {
  return sparse === 'all' || (sparse === 'index' && kind === 'child')
}

/** The facts about the manifest that every event of a push includes. */
function facts(
  manifest: Manifest,
  about: { repository: RepositoryName; digest: Digest; size: number },
): Record<string, unknown> {
  return {
    ...about,
    mediaType: manifest.mediaType,
    ...(manifest.artifactType !== undefined && { artifactType: manifest.artifactType }),
    ...(manifest.subject !== undefined && { subject: manifest.subject.digest }),
  }
}

/** Descriptors only, never the manifest's free text. */
function descriptorFacts(manifest: Manifest): Record<string, unknown> {
  return {
    references: manifest.references.map(({ kind, mediaType, digest, size, foreign }) => ({
      kind,
      mediaType,
      digest,
      size,
      ...(foreign && { foreign }),
    })),
  }
}
