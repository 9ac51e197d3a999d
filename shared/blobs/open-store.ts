// The region's blob stores. New blobs go to the one that is configured; rows may name others while a region moves from
// one to another, and those are opened when a row first asks for them. Each cloud's SDK is loaded only where it is used:
// they are large.

import type { BlobsConfig } from '../config/blobs.ts'
import { type BlobStore, StoreError } from './blob-store.ts'
import type { ByteBudget } from './byte-budget.ts'
import { openFileStore } from './files/file-store.ts'
import type { Volume } from './files/volume.ts'
import type { ObjectService } from './objects/object-service.ts'
import type { PartBuffers } from './objects/part-buffers.ts'
import { createPartStore } from './objects/part-store.ts'

export interface OpenStoreOptions {
  /** Of the file store. */
  directory: string
  freeBytesMin: number
  /** Its volume, where others watch it too. */
  volume?: Volume | undefined
  readBudget: ByteBudget
  partBuffers: PartBuffers
  /** Of one operation on an object store, repetitions included. */
  timeoutMs: number
}

export interface BlobStores extends AsyncDisposable {
  /** Where new blobs go. */
  readonly primary: BlobStore
  /** The store that a row names. @throws StoreError 'unavailable' when it is not configured here */
  named(name: string): Promise<BlobStore>
}

export async function openBlobStores(
  configs: { primary: BlobsConfig; all: readonly BlobsConfig[] },
  options: OpenStoreOptions & {
    /** Of small blobs: always there, because rows may name it. */
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
    // Two tries fit even where the first one meets silence.
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
