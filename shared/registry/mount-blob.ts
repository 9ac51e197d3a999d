// Mounting: a blob that one repository holds becomes another's too, by one row and no bytes. The caller must be allowed
// to read the source; without a named source, any repository that the caller may read will do. A blob whose object is
// gone is not mounted: the client then uploads it, and that repairs it.

import { mountBlob } from '#shared/db/blobs.ts'
import { repositoriesWithBlob } from '#shared/db/memberships.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import type { WritePosition } from '#shared/db/registers.ts'
import type { Digest } from '#shared/oci/digest.ts'
import { type RepositoryName, shardOf } from '#shared/oci/reference.ts'
import { inRepository } from './in-repository.ts'
import type { Registry } from './registry.ts'

/** How many repositories that hold a digest are considered for a mount without `from`. */
const CANDIDATES_MAX = 100

/**
 * Links a blob that another repository holds. Without `from`, any repository for which `mayPull` holds will do.
 * undefined: nobody the caller may read from holds it; the client has to upload.
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
