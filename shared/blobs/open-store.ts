// The blob stores of the region. New blobs go to the configured one. While a region moves from one store to another,
// rows may name other stores. Those are opened when a row first needs them. The SDK of each cloud is large, so it is
// loaded only where it is used.

import type { BlobsConfig } from '../config/blobs.ts'
import { type BlobStore, StoreError } from './blob-store.ts'
import type { ByteBudget } from './byte-budget.ts'
import { openFileStore } from './files/file-store.ts'
import type { Volume } from './files/volume.ts'
import type { ObjectService } from './objects/object-service.ts'
import type { PartBuffers } from './objects/part-buffers.ts'
import { createPartStore } from './objects/part-store.ts'

export interface OpenStoreOptions {
  /** The directory of the file store. */
  directory: string
  freeBytesMin: number
  /** The volume of the directory, if others watch it too. */
  volume?: Volume | undefined
  readBudget: ByteBudget
  partBuffers: PartBuffers
  /** Time limit of one operation on an object store, including retries. */
  timeoutMs: number
}

export interface BlobStores extends AsyncDisposable {
  /** The store for new blobs. */
  readonly primary: BlobStore
  /** The store that a row names. @throws StoreError 'unavailable' if it is not configured here */
  named(name: string): Promise<BlobStore>
}

export async function openBlobStores(
  configs: { primary: BlobsConfig; all: readonly BlobsConfig[] },
  options: OpenStoreOptions & {
    /** The store of small blobs. Always present, because rows may name it. */
    rows: BlobStore
  },
): Promise<BlobStores> {
  const primary = await openBlobStore(configs.primary, options)
  const others = new Map<string, Promise<BlobStore>>()
  return {
    primary,
    async named(name) {
      if (name === primary.name) return primary
      if (name === options.rows.name) return options.rows
      const opened = others.get(name)
      if (opened !== undefined) return opened
      const config = configs.all.find(({ kind }) => kind === name)
      if (config === undefined) {
        throw new StoreError('unavailable', `a blob is in the store "${name}", which is not configured here`)
      }
      const opening = openBlobStore(config, options)
      others.set(name, opening)
      return opening
    },
    async [Symbol.asyncDispose]() {
      for (const opening of others.values()) await (await opening)[Symbol.asyncDispose]()
      await primary[Symbol.asyncDispose]()
    },
  }
}

export async function openBlobStore(config: BlobsConfig, options: OpenStoreOptions): Promise<BlobStore> {
  if (config.kind === 'file') {
    const { directory, freeBytesMin, readBudget, volume } = options
    return openFileStore({ directory, budget: readBudget, freeBytesMin, ...(volume && { volume }) })
  }
  const { partBuffers, timeoutMs } = options
  return createPartStore({
    service: await serviceOf(config),
    buffers: partBuffers,
    // Two attempts fit even if the first one gets no response.
    limits: { tryMs: timeoutMs / 2, totalMs: timeoutMs },
    stallMs: timeoutMs / 2,
  })
}

async function serviceOf(config: Exclude<BlobsConfig, { kind: 'file' }>): Promise<ObjectService> {
  switch (config.kind) {
    case 's3':
      return (await import('./objects/s3-service.ts')).openS3Service(config)
    case 'gcs':
      return (await import('./objects/gcs-service.ts')).openGcsService(config)
    case 'azure':
      return (await import('./objects/azure-service.ts')).openAzureService(config)
  }
}
