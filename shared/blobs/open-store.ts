// The region's blob store, chosen by configuration. Each cloud's SDK is loaded only where it is used: they are large.

import type { BlobsConfig } from '../config.ts'
import type { BlobStore } from './blob-store.ts'
import type { ByteBudget } from './byte-budget.ts'
import { openFileStore } from './file-store.ts'
import type { ObjectService } from './object-service.ts'
import type { PartBuffers } from './part-buffers.ts'
import { createPartStore } from './part-store.ts'

export interface OpenStoreOptions {
  /** Of the file store. */
  directory: string
  freeBytesMin: number
  readBudget: ByteBudget
  partBuffers: PartBuffers
}

export async function openBlobStore(config: BlobsConfig, options: OpenStoreOptions): Promise<BlobStore> {
  if (config.kind === 'file') {
    const { directory, freeBytesMin, readBudget } = options
    return openFileStore({ directory, budget: readBudget, freeBytesMin })
  }
  return createPartStore({ service: await serviceOf(config), buffers: options.partBuffers })
}

async function serviceOf(config: Exclude<BlobsConfig, { kind: 'file' }>): Promise<ObjectService> {
  switch (config.kind) {
    case 's3':
      return (await import('./s3-service.ts')).openS3Service(config)
    case 'gcs':
      return (await import('./gcs-service.ts')).openGcsService(config)
    case 'azure':
      return (await import('./azure-service.ts')).openAzureService(config)
  }
}
