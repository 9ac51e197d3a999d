// Deleting: a tag, a manifest by digest with every tag on it, a repository's link to a blob. Each delete writes a
// tombstone that wins over what it deletes and loses to any later push. The garbage collector removes the bytes.

import { deleteMembership } from '#shared/db/memberships.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import type { WritePosition } from '#shared/db/registers.ts'
import { deleteRepository as deleteRepositoryRow, repositoryExists } from '#shared/db/repositories.ts'
import { deleteTag as deleteTagRow } from '#shared/db/tags.ts'
import { RegistryError } from '#shared/errors.ts'
import type { Digest } from '#shared/oci/digest.ts'
import { type RepositoryName, shardOf, type Tag } from '#shared/oci/reference.ts'
import type { Registry } from './registry.ts'

export async function deleteTag(
  registry: Registry,
  options: { repository: RepositoryName; tag: Tag; provenance: Provenance },
): Promise<WritePosition> {
  requireDeletes(registry)
  const { repository } = options
  const position = await registry.db.transaction(
    (transaction) =>
      deleteTagRow(transaction, { ...options, shard: shardOf(repository), origin: registry.name }),
    { repository },
  )
  if (position !== undefined) return position
  throw await unknown(registry, repository, 'MANIFEST_UNKNOWN')
}

/**
 * Returns 405 UNSUPPORTED with `referencedBy` while a live index (for a blob: a live manifest) of the repository names
 * it.
 */
export async function deleteContent(
  registry: Registry,
  options: {
    repository: RepositoryName
    kind: 'manifest' | 'blob'
    digest: Digest
    provenance: Provenance
  },
): Promise<WritePosition> {
  requireDeletes(registry)
  const { repository, kind } = options
  const outcome = await registry.db.transaction(
    (transaction) =>
      deleteMembership(transaction, { ...options, shard: shardOf(repository), origin: registry.name }),
    { repository },
  )
  switch (outcome.kind) {
    case 'deleted':
      return outcome.position
    case 'referenced':
      throw new RegistryError('UNSUPPORTED', {
        message: 'other manifests of the repository name this content: delete them first',
        details: [{ referencedBy: outcome.by }],
      })
    case 'unknown':
      throw await unknown(registry, repository, kind === 'blob' ? 'BLOB_UNKNOWN' : 'MANIFEST_UNKNOWN')
  }
}

/** Deletes the repository and everything in it. A later push creates it anew. */
export async function deleteRepository(
  registry: Registry,
  options: { repository: RepositoryName; provenance: Provenance },
): Promise<WritePosition> {
  requireDeletes(registry)
  const { repository, provenance } = options
  const position = await registry.db.transaction(
    (transaction) =>
      deleteRepositoryRow(transaction, { name: repository, origin: registry.name, provenance }),
    { repository },
  )
  if (position === undefined) throw new RegistryError('NAME_UNKNOWN')
  return position
}

function requireDeletes(registry: Registry): void {
  if (registry.limits.deletes) return
  throw new RegistryError('UNSUPPORTED', { message: 'this registry does not allow deletes' })
}

async function unknown(
  registry: Registry,
  repository: RepositoryName,
  code: 'MANIFEST_UNKNOWN' | 'BLOB_UNKNOWN',
): Promise<RegistryError> {
  return new RegistryError((await repositoryExists(registry.db, repository)) ? code : 'NAME_UNKNOWN')
}
