// Opens a region's blob stores: the store for new blobs, other stores that rows may still name, the check of who owns
// them, and the volumes on which uploads must leave free space. A process opens them when its first service needs
// bytes; a relay never does.
//
// If a store is misconfigured or belongs to another database, the start fails with an error. If it is temporarily
// unreachable or full, the process starts and waits for it.

import { join } from 'node:path'
import { type BlobStore, StoreError, type StoreOwner } from './blobs/blob-store.ts'
import { createByteBudget } from './blobs/byte-budget.ts'
import { type Volumes, volumesOf } from './blobs/files/volumes.ts'
import { createPartBuffers } from './blobs/objects/part-buffers.ts'
import { type BlobStores, openBlobStores } from './blobs/open-store.ts'
import { NOT_WATCHED, type Ownership, watchOwnership } from './blobs/ownership.ts'
import type { Config } from './config/load.ts'
import type { Database } from './db/connect.ts'
import { type OlderReleases, watchOlderReleases } from './db/older-releases.ts'
import { createRowStore } from './db/row-store.ts'
import type { Queryable } from './db/statement.ts'
import { databaseIdentity, knownRows } from './db/store-owner.ts'
import { makeDurableDirectory } from './embedded/durable-directory.ts'
import { OperatorError } from './errors.ts'
import type { Log } from './observability/log.ts'

/** The size limit of one blob in the database, because such blobs are read and written whole. */
const ROW_BYTES_MAX = 1024 * 1024

export interface RegionStores {
  /** The store for new blobs. */
  readonly blobs: BlobStore
  /** All stores that rows may name. */
  readonly stores: BlobStores
  /** Blobs that are stored as rows of the database. */
  readonly smallBlobs: {
    readonly store: BlobStore
    /** The size up to which a pushed blob becomes a row. -1: none does. */
    bytesMax(): number
  }
  /** Nodes of releases that support neither small blobs nor sessions without a row. */
  readonly olderReleases: Pick<OlderReleases, 'retired'>
  /** This database, as markers in stores name it. */
  readonly owner: StoreOwner
  /** Whether `blobs` belongs to this database. */
  readonly ownership: Ownership
  readonly volumes: Volumes
  /**
   * Must be awaited before every write of rows for a client.
   * @throws StoreError 'full' if the embedded database's volume is below the minimum of free space
   */
  requireDatabaseRoom(): Promise<void>
}

export interface OpenedStores extends RegionStores, AsyncDisposable {
  /** What the check at the start found. undefined: the store can be used. */
  readonly found: StoreError | undefined
}

export interface RegionStoresContext {
  /** The region's own directory. */
  readonly directory: string
  readonly db: Database
  readonly reads: Queryable
  readonly log: Log
  readonly logFailure: (error: unknown, sentence: string) => void
  /** True: opens the stores without checking who owns them. */
  readonly unowned: boolean
}

/**
 * @throws OperatorError if the operator must change something; StoreOwnerError if the store belongs to another database
 */
export async function openRegionStores(config: Config, context: RegionStoresContext): Promise<OpenedStores> {
  const { directory, db, reads, log } = context
  await using opened = new AsyncDisposableStack()
  const blobDirectory = join(directory, 'blobs')
  if (config.blobs.kind === 'file') await makeDurableDirectory(blobDirectory, { mode: 0o700 })
  const volumes = await volumesOf(config, { blobDirectory, directory })
  const owner = { region: config.region, database: await databaseIdentity(db) }
  const rows = createRowStore({ db, reads, owner, bytesMax: ROW_BYTES_MAX })
  const stores = opened.use(
    await openBlobStores(
      { primary: config.blobs, all: config.stores },
      {
        rows,
        directory: blobDirectory,
        freeBytesMin: config.bytes.freeMin,
        volume: volumes.blobs,
        readBudget: createByteBudget({ bytesMax: config.bytes.readBuffer }),
        partBuffers: createPartBuffers({ bytesMax: config.bytes.writeBuffer }),
        timeoutMs: config.storeTimeoutSeconds * 1_000,
      },
    ),
  )
  const blobs = stores.primary
  const ownership = context.unowned ? NOT_WATCHED : opened.use(await ownershipOf({ blobs, owner, db, log }))
  // Do not wait a second time for a store that was just found unreachable.
  const found = ownership.known() ? await requireUsable(blobs, log) : await notKnown(ownership)
  const olderReleases = opened.use(
    await watchOlderReleases({
      db,
      migration: 'small-blobs',
      onError: (error) => context.logFailure(error, 'could not check for nodes of older releases'),
    }),
  )
  const { inlineBytesMax } = config
  const stack = opened.move()
  return {
    blobs,
    stores,
    smallBlobs: {
      store: rows,
      bytesMax: () => (inlineBytesMax > 0 && olderReleases.retired() ? inlineBytesMax : -1),
    },
    olderReleases,
    owner,
    ownership,
    volumes,
    found,
    requireDatabaseRoom: async () => volumes.database?.requireRoom(),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

async function ownershipOf(context: {
  blobs: BlobStore
  owner: StoreOwner
  db: Database
  log: Log
}): Promise<Ownership> {
  const { blobs, owner, db, log } = context
  try {
    return await watchOwnership({
      store: blobs,
      mine: owner,
      rows: knownRows(db, blobs),
      onChange: (reason) =>
        reason === undefined
          ? log.warn('the blob store belongs to this database: uploads resume')
          : log.error(
              { error: reason },
              'the blob store is not known to belong to this database: uploads wait',
            ),
    })
  } catch (thrown) {
    // The probe reports which step fails.
    if (thrown instanceof StoreError) await blobs.check()
    throw thrown
  }
}

/**
 * Throws what the operator must change. Logs and returns the error of a store that is temporarily unreachable or full.
 */
async function requireUsable(blobs: BlobStore, log: Log): Promise<StoreError | undefined> {
  try {
    await blobs.check()
    return undefined
  } catch (thrown) {
    if (!(thrown instanceof StoreError)) throw thrown
    if (!thrown.retryable) throw new OperatorError(thrown.message, { cause: thrown })
    const full = thrown.kind === 'full'
    log.warn(
      { error: thrown },
      full
        ? 'the blob store is full: uploads wait until there is space'
        : 'the blob store is unreachable: pulls and pushes of blobs wait for it',
    )
    return thrown
  }
}

async function notKnown(ownership: Ownership): Promise<StoreError | undefined> {
  try {
    await ownership.require()
    return undefined
  } catch (thrown) {
    if (thrown instanceof StoreError) return thrown
    throw thrown
  }
}
