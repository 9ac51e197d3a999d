// What the use cases of the registry depend on: the database, the blob stores, the caches of both, and the limits. A
// function that pushes or pulls takes this instead of the whole region. The edge opens it once per process.

import { type BlobCache, createBlobCache } from '#shared/blobs/blob-cache.ts'
import type { Config } from '#shared/config/load.ts'
import type { Region } from '#shared/region.ts'
import type { RegionStores } from '#shared/region-stores.ts'
import { type BlobHealth, createBlobHealth } from './blob-health.ts'
import { createManifestCache, type ManifestCache } from './manifest-cache.ts'
import { createUploadIds, type UploadIds } from './upload-ids.ts'

export type Limits = Config['registry']

export interface Registry
  extends Pick<Region, 'name' | 'instance' | 'db' | 'reads' | 'lookups' | 'pages' | 'log' | 'reach'>,
    Pick<
      RegionStores,
      'blobs' | 'stores' | 'smallBlobs' | 'olderReleases' | 'ownership' | 'requireDatabaseRoom'
    > {
  readonly blobCache: BlobCache
  readonly blobHealth: BlobHealth
  readonly manifests: ManifestCache
  readonly uploadIds: UploadIds
  readonly limits: Limits
  /** How long bytes that no row names are kept. */
  readonly orphanGraceSeconds: number
}

/** Opens the region's stores if they are not open yet. Dispose the result before the region. */
export async function openRegistry(region: Region): Promise<Registry & AsyncDisposable> {
  const { name, instance, db, reads, lookups, pages, log, reach, metrics, config } = region
  const { blobs, stores, smallBlobs, olderReleases, ownership, requireDatabaseRoom } =
    await region.openStores()
  const blobHealth = createBlobHealth({ db, stores, log, metrics })
  return {
    name,
    instance,
    db,
    reads,
    lookups,
    pages,
    log,
    reach,
    blobs,
    stores,
    smallBlobs,
    olderReleases,
    ownership,
    requireDatabaseRoom,
    blobCache: createBlobCache({ bytesMax: config.bytes.cache / 2 }),
    blobHealth,
    manifests: createManifestCache({ db: reads, bytesMax: config.bytes.cache / 2 }),
    uploadIds: createUploadIds({
      region: name,
      db,
      ttlSeconds: config.registry.uploadTtlSeconds,
      trouble: () => region.databaseInTrouble(),
    }),
    limits: config.registry,
    orphanGraceSeconds: config.janitor.orphanGraceSeconds,
    [Symbol.asyncDispose]: () => blobHealth[Symbol.asyncDispose](),
  }
}
