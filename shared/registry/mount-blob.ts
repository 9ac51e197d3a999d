// Mounting links a blob of one repository into another, by one row and without copying bytes. The caller must be
// allowed to read the source. If the request names no source, any repository that the caller may read can be the
// source. A blob whose object is gone is not mounted: the client then uploads it, which repairs it.

import { mountBlob } from '#shared/db/blobs.ts'
import { repositoriesWithBlob } from '#shared/db/memberships.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import type { WritePosition } from '#shared/db/registers.ts'
import type { Digest } from '#shared/oci/digest.ts'
import { type RepositoryName, shardOf } from '#shared/oci/reference.ts'
import { inRepository } from './in-repository.ts'
import type { Registry } from './registry.ts'

/** Maximum number of repositories with the digest that are considered for a mount without `from`. */
const CANDIDATES_MAX = 100

/**
 * Links a blob that another repository holds. Without `from`, the source is any repository for which `mayPull` is true.
 * Returns undefined if no repository that the caller may read holds it; the client then has to upload.
 */
export async function mountFrom(
  registry: Registry,
  options: {
    repository: RepositoryName
    digest: Digest
    from: RepositoryName | undefined
    mayPull: (repository: RepositoryName) => boolean
    provenance: Provenance
  },
): Promise<WritePosition | undefined> {
  const { repository, digest, provenance } = options
  await registry.requireDatabaseRoom()
  const candidates =
    options.from === undefined
      ? await repositoriesWithBlob(registry.db, { digest, limit: CANDIDATES_MAX })
      : [options.from]
  const from = candidates.find(options.mayPull)
  if (from === undefined) return undefined
  const found = await registry.lookups.read({ repository: from, kind: 'blob', reference: digest })
  if (found?.kind !== 'blob' || found.damaged || !(await registry.blobHealth.isThere(found))) return undefined
  const statement = {
    repository,
    digest,
    from,
    provenance,
    shard: shardOf(repository),
    origin: registry.name,
  }
  const write = () => mountBlob(registry.db, statement)
  const outcome = await inRepository(registry, { repository, write })
  return outcome.kind === 'mounted' ? outcome.position : undefined
}
