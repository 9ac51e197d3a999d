// A region's blob stores, opened: the store for new blobs, those that rows may still name, who owns them, and the volumes
// whose free space uploads must leave. A process opens them when its first service needs bytes; a relay never does.
//
// A store that is set up wrongly or is somebody else's ends the start with a sentence. One that is away for the moment or
// full does not: it is waited for.

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

/** Of one blob in the database, whoever sends it: they are read and written whole. */
const ROW_BYTES_MAX = 1024 * 1024

export interface RegionStores {
  /** Where new blobs go. */
  readonly blobs: BlobStore
  /** Where rows may say that blobs are. */
  readonly stores: BlobStores
  /** The blobs that are rows of the database. */
  readonly smallBlobs: {
    readonly store: BlobStore
    /** The size up to which a pushed blob becomes one; -1: none does. */
    bytesMax(): number
  }
  /** Nodes that know neither small blobs nor sessions without a row. */
  readonly olderReleases: Pick<OlderReleases, 'retired'>
  /** This database, as markers of stores name it. */
  readonly owner: StoreOwner
  /** Whether `blobs` is this database's. */
  readonly ownership: Ownership
  readonly volumes: Volumes
  /**
   * To be awaited by everything that writes rows for a client.
   * @throws StoreError 'full' when the embedded database's volume is below the floor
   */
  requireDatabaseRoom(): Promise<void>
}

export interface OpenedStores extends RegionStores, AsyncDisposable {
  /** What the look at the start found; undefined: the store can be used. */
  readonly found: StoreError | undefined
}

export interface RegionStoresContext {
  /** The region's own directory. */
  readonly directory: string
  readonly db: Database
  readonly reads: Queryable
  readonly log: Log
  readonly logFailure: (error: unknown, sentence: string) => void
  /** Opens them without asking whose they are. */
  readonly unowned: boolean
}

/** @throws OperatorError when the operator has to change something; StoreOwnerError when the store is somebody else's */
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
  // A store that was just found out of reach is not waited for twice.
  const found = ownership.known() ? await requireUsable(blobs, log) : await notKnown(ownership)
  const olderReleases = opened.use(
    await watchOlderReleases({
      db,
      migration: 'small-blobs',
      onError: (error) => context.logFailure(error, 'nodes of older releases could not be looked for'),
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
          ? log.warn("the blob store is known to be this database's: uploads go on")
          : log.error({ error: reason }, "the blob store is not known to be this database's: uploads wait"),
    })
  } catch (thrown) {
    // The probe says which step fails.
    if (thrown instanceof StoreError) await blobs.check()
    throw thrown
  }
}

/** What the operator has to change is thrown; a store that is away or full for the moment is returned and logged. */
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
        : 'the blob store is out of reach: pulls and pushes of blobs wait for it',
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
