// A region as a value: who it is, its configuration, its database, log and metrics, made once and disposed in reverse
// order. Its blob stores are opened on first use, by whichever service of the process needs bytes; a relay or a sender of
// webhooks runs without them. What only the HTTP edge needs is services/api/edge.ts; what use-cases need is
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
  /** This process, in events and logs. */
  readonly instance: string
  /** For writes, and for reads that belong to one. */
  readonly db: Database
  /** For reads, on connections that no write can keep from them. */
  readonly reads: Queryable
  readonly lookups: SnapshotReader<Lookup, Found>
  readonly pages: SnapshotReader<PageKey, NamePage>
  /** Seals and opens secrets in rows; undefined: there is no key, so nothing that holds a secret can be written. */
  readonly sealer: Sealer | undefined
  readonly log: Log
  /** Logs work that failed and will be tried again; the database's absence is told once, whatever fails by it. */
  readonly logFailure: (error: unknown, sentence: string) => void
  readonly metrics: Metrics
  readonly reach: ReachFailpoint
  /** Where this region's database is: given, or the embedded one's. */
  readonly databaseUrl: string
  /** True while the database fails: what was learned from it is not to be trusted. */
  databaseInTrouble(): boolean
  /** Resolves when something that cannot be done without is lost for good. */
  readonly failed: Promise<Error>
  /** What a check every few seconds says: asking costs nothing. Looks at the stores once they are open. */
  readiness(): Promise<Readiness>
  /**
   * The blob stores: opened by the first call, the same for every other, disposed with the region.
   * @throws OperatorError when the operator has to change something; StoreOwnerError when the store is somebody else's
   */
  openStores(): Promise<RegionStores>
}

/** For services and commands that work on bytes. */
export type RegionWithStores = Region & RegionStores

export interface RegionOptions {
  /** Test seam: see failpoints.ts. */
  reach?: ReachFailpoint
  /** Opens the stores without asking who owns them: only the command that adopts one may. */
  unowned?: true
  /** Test seam: where log lines go. */
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
    // The store was looked at a moment ago: the first verdict is that look's.
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
      // Whoever asked for them was told of a failure; here they only must not be left half open.
      await Promise.allSettled([opening])
      await stack.disposeAsync()
    },
  }
}

/** The region and its stores as one value. Disposing it disposes the region. */
export async function withStores(region: Region): Promise<RegionWithStores> {
  return { ...(await region.openStores()), ...region }
}

function throwIfAny(found: StoreError | undefined): void {
  if (found !== undefined) throw found
}

/** A full store is ready: whoever balances by readiness must not take the pulls away too. */
async function unlessFull(check: () => Promise<unknown>): Promise<void> {
  try {
    await check()
  } catch (thrown) {
    if (!(thrown instanceof StoreError && thrown.kind === 'full')) throw thrown
  }
}
