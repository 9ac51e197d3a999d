// A region as a value: its identity, configuration, database, log and metrics, created once and disposed in reverse
// order. Its blob stores are opened on first use, by the first service of the process that needs bytes; a relay or a
// webhook sender runs without them. What only the HTTP edge needs is in services/api/edge.ts. What use-cases need is in
// shared/registry/registry.ts. Nothing lives at module scope, so two regions fit in one process and share nothing.

import { randomUUID } from 'node:crypto'
import { resolve } from 'node:path'
import { StoreError } from './blobs/blob-store.ts'
import type { Config } from './config/load.ts'
import { countDamagedBlobs } from './db/blobs.ts'
import type { Database } from './db/connect.ts'
import type { Found, Lookup } from './db/lookups.ts'
import { countManifests } from './db/memberships.ts'
import { ownReadersBehind } from './db/own-readers.ts'
import type { NamePage, PageKey } from './db/pages.ts'
import { peerReadersBehind } from './db/peer-readers.ts'
import { regionRow } from './db/region.ts'
import { sealStoredSecrets } from './db/seal-stored-secrets.ts'
import type { SnapshotReader } from './db/snapshot-reader.ts'
import type { Queryable } from './db/statement.ts'
import { countUploads } from './db/uploads.ts'
import { waitingDeliveries } from './db/webhook-deliveries.ts'
import { makeDurableDirectory } from './embedded/durable-directory.ts'
import { noFailpoints, type ReachFailpoint } from './failpoints.ts'
import { createLog, type Log } from './observability/log.ts'
import { createMetrics, type Metrics } from './observability/metrics.ts'
import type { Readiness } from './observability/probe-server.ts'
import { watchReadiness } from './observability/readiness.ts'
import { openRegionDatabase } from './region-database.ts'
import { openRegionStores, type RegionStores } from './region-stores.ts'
import type { Sealer } from './secrets/sealer.ts'
import { openSealer } from './secrets/secrets-key.ts'

export interface Region extends AsyncDisposable {
  readonly config: Config
  readonly name: string
  /** The id of this process in events and logs. */
  readonly instance: string
  /** For writes, and for reads that belong to a write. */
  readonly db: Database
  /** For reads. Writes cannot use up its connections. */
  readonly reads: Queryable
  readonly lookups: SnapshotReader<Lookup, Found>
  readonly pages: SnapshotReader<PageKey, NamePage>
  /** Seals and opens secrets in rows. undefined: there is no key, so nothing that holds a secret can be written. */
  readonly sealer: Sealer | undefined
  readonly log: Log
  /**
   * Logs work that failed and will be retried. An outage of the database is logged once, however many operations fail.
   */
  readonly logFailure: (error: unknown, sentence: string) => void
  readonly metrics: Metrics
  readonly reach: ReachFailpoint
  /** The URL of this region's database: the configured one, or the embedded one's. */
  readonly databaseUrl: string
  /** True while the database fails: what was read from it is not to be trusted. */
  databaseInTrouble(): boolean
  /** Resolves if an indispensable part is lost for good. */
  readonly failed: Promise<Error>
  /** Returns the result of the periodic checks; calling it is cheap. Includes the stores once they are open. */
  readiness(): Promise<Readiness>
  /**
   * Opens the blob stores. The first call opens them, later calls return the same stores. They are disposed with the
   * region.
   * @throws OperatorError if the operator must change something; StoreOwnerError if the store belongs to another
   * database
   */
  openStores(): Promise<RegionStores>
}

/** For services and commands that read or write blobs. */
export type RegionWithStores = Region & RegionStores

export interface RegionOptions {
  /** Test seam: see failpoints.ts. */
  reach?: ReachFailpoint
  /** Opens the stores without checking who owns them. Only the command that adopts a store may set this. */
  unowned?: true
  /** Test seam: receives the log lines. */
  logTo?: { write(line: string): void }
}

export async function openRegion(config: Config, options: RegionOptions = {}): Promise<Region> {
  await using opened = new AsyncDisposableStack()
  const { log } = opened.use(
    createLog({ level: config.logLevel, name: config.region, ...(options.logTo && { to: options.logTo }) }),
  )
  const directory = resolve(config.dataDir, config.region)
  await makeDurableDirectory(directory, { mode: 0o711 })
  const database = await openRegionDatabase(config, { directory, log, opened })
  const { db, reads } = database
  const sealer = await openSealer({
    configured: config.secretsKeys,
    directory,
    mayMake: config.database.embedded,
  })
  await sealStoredSecrets({ db, sealer, log })
  const { lookups, pages } = await database.openReaders()
  let stores: RegionStores | undefined
  const metrics = createMetrics({
    manifests: () => countManifests(reads),
    uploadsOpen: () => countUploads(reads),
    blobsDamaged: () => countDamagedBlobs(reads),
    readersBehind: async () => [...(await ownReadersBehind(reads)), ...(await peerReadersBehind(reads))],
    webhooksWaiting: () => waitingDeliveries(reads),
    pool: () => db.poolSize(),
    databaseRetries: () => db.retries(),
    freeBytes: async () => {
      const known = Object.entries(stores?.volumes ?? {}).filter(([, volume]) => volume !== undefined)
      return Promise.all(known.map(async ([name, volume]) => ({ name, bytes: await volume.freeBytes() })))
    },
  })
  const watch = opened.use(await watchReadiness({ checks: { database: () => regionRow(reads) } }))

  async function open(): Promise<RegionStores> {
    const fresh = stack.use(
      await openRegionStores(config, {
        directory,
        db,
        reads,
        log,
        logFailure: database.logFailure,
        unowned: options.unowned === true,
      }),
    )
    const { blobs, ownership, found } = fresh
    // The store was checked a moment ago, so its first result is that check's.
    await watch.add('blob store', {
      check: () => unlessFull(() => blobs.check()),
      first: () => unlessFull(async () => throwIfAny(found)),
    })
    await watch.add("the blob store's owner", { check: () => unlessFull(() => ownership.require()) })
    stores = fresh
    return fresh
  }
  let opening: Promise<RegionStores> | undefined
  const stack = opened.move()
  return {
    config,
    name: config.region,
    instance: randomUUID(),
    db,
    reads,
    lookups,
    pages,
    sealer,
    log,
    logFailure: database.logFailure,
    metrics,
    reach: options.reach ?? noFailpoints,
    databaseUrl: database.url,
    databaseInTrouble: () => database.inTrouble(),
    failed: database.failed,
    readiness: async () => watch.now(),
    openStores() {
      opening ??= open()
      return opening
    },
    async [Symbol.asyncDispose]() {
      // A failure was already reported to the caller. This only ensures that no store is left half open.
      await Promise.allSettled([opening])
      await stack.disposeAsync()
    },
  }
}

/** Returns the region and its stores as one value. Disposing it disposes the region. */
export async function withStores(region: Region): Promise<RegionWithStores> {
  return { ...(await region.openStores()), ...region }
}

function throwIfAny(found: StoreError | undefined): void {
  if (found !== undefined) throw found
}

/** A full store counts as ready: a load balancer that uses readiness must not cut off pulls too. */
async function unlessFull(check: () => Promise<unknown>): Promise<void> {
  try {
    await check()
  } catch (thrown) {
    if (!(thrown instanceof StoreError && thrown.kind === 'full')) throw thrown
  }
}
