// A region as a value: everything a service needs, made once from the configuration and disposed in reverse order.
// Nothing lives at module scope, so two regions fit in one process and share nothing.

import { randomUUID } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createAddressMatcher } from './auth/challenge.ts'
import { openAccounts } from './auth/htpasswd.ts'
import { createKeyRing } from './auth/key-ring.ts'
import { createPasswordChecker } from './auth/passwords.ts'
import { createPeerVerifier, type PeerVerifier } from './auth/peer-signature.ts'
import type { Auth } from './auth/token-service.ts'
import { createTokens } from './auth/tokens.ts'
import { type BlobCache, createBlobCache } from './blobs/blob-cache.ts'
import { type BlobStore, StoreError } from './blobs/blob-store.ts'
import { createByteBudget } from './blobs/byte-budget.ts'
import { createRateGuard, type RateGuard } from './blobs/minimum-rate.ts'
import { type BlobStores, openBlobStores } from './blobs/open-store.ts'
import { createPartBuffers } from './blobs/part-buffers.ts'
import type { Config } from './config.ts'
import { type Database, openDatabase } from './db/connect.ts'
import { readersBehind } from './db/event-cursors.ts'
import { logReadersBehind } from './db/log-readers.ts'
import { type Found, type Lookup, lookups } from './db/lookups.ts'
import { countManifests } from './db/memberships.ts'
import { holdSchema, migrate, readMigrations } from './db/migrate.ts'
import { raiseEpochIfRestored, regionRow } from './db/region.ts'
import { insertSigningKeyIfAbsent, listSigningKeys } from './db/signing-keys.ts'
import { openSnapshotReader, type SnapshotReader } from './db/snapshot-reader.ts'
import { countUploads } from './db/uploads.ts'
import { waitingDeliveries } from './db/webhook-deliveries.ts'
import { startEmbeddedPostgres } from './embedded/postgres.ts'
import { createLog, type Log } from './observability/log.ts'
import { createMetrics, type Metrics } from './observability/metrics.ts'
import type { Readiness } from './observability/probe-server.ts'
import { watchReadiness } from './observability/readiness.ts'
import { noFailpoints, type ReachFailpoint } from './registry/failpoints.ts'
import { createManifestCache, type ManifestCache } from './registry/manifest-cache.ts'
import { createPullCounter, type PullCounter } from './registry/pull-counter.ts'

export type Sparse = Config['registry']['sparse']

/** Keys whose last answer is kept: a tag or digest each, some hundred bytes. */
const LOOKUP_ENTRIES_MAX = 200_000

export interface Region extends AsyncDisposable {
  readonly config: Config
  readonly name: string
  /** Part of every event id; raised when the database was restored from a backup. */
  readonly epoch: number
  /** This process, in events and logs. */
  readonly instance: string
  readonly db: Database
  readonly lookups: SnapshotReader<Lookup, Found>
  /** Where new blobs go. */
  readonly blobs: BlobStore
  /** Where rows may say that blobs are. */
  readonly stores: BlobStores
  readonly blobCache: BlobCache
  readonly manifests: ManifestCache
  /** Whether a pull of so many bytes by a client at this address is sent to the object store. */
  readonly redirects: (bytes: number, address: string) => boolean
  readonly rateGuard: RateGuard
  readonly limits: Config['registry']
  /** undefined: nobody is asked who they are. */
  readonly auth: Auth | undefined
  /** Who other regions are; undefined: there are none. */
  readonly peers: PeerVerifier | undefined
  readonly log: Log
  readonly metrics: Metrics
  /** undefined: pulls are no events here. */
  readonly pulls: PullCounter | undefined
  readonly reach: ReachFailpoint
  /** Where this region's database is: given, or the embedded one's. */
  readonly databaseUrl: string
  /** Resolves when something that cannot be done without is lost for good. */
  readonly failed: Promise<Error>
  /** What a check every few seconds says: asking costs nothing. */
  readiness(): Promise<Readiness>
}

export interface RegionOptions {
  /** Test seam: see failpoints.ts. */
  reach?: ReachFailpoint
  /** Test seam: where log lines go. */
  logTo?: { write(line: string): void }
}

export async function openRegion(config: Config, options: RegionOptions = {}): Promise<Region> {
  await using opened = new AsyncDisposableStack()
  const { log } = opened.use(
    createLog({ level: config.logLevel, name: config.region, ...(options.logTo && { to: options.logTo }) }),
  )
  const directory = join(config.dataDir, config.region)
  await mkdir(directory, { recursive: true, mode: 0o711 })
  const database = await databaseOf(config, { directory, log, opened })
  const migrations = await readMigrations()
  await migrate(database.url, config.region, migrations)
  const onError = (error: Error) => log.warn({ error }, 'the database connection had an error')
  const db = opened.use(
    openDatabase({ url: database.url, connections: config.database.connections, onIdleError: onError }),
  )
  const raised = await raiseEpochIfRestored(db)
  if (raised !== undefined) {
    log.warn(
      { epoch: raised },
      'the database was restored or taken over: the epoch is raised, orphans stay for seven days',
    )
  }
  const { epoch } = await regionRow(db)
  const stores = opened.use(
    await openBlobStores(
      { primary: config.blobs, all: config.stores },
      {
        directory: join(directory, 'blobs'),
        freeBytesMin: config.bytes.freeMin,
        readBudget: createByteBudget({ bytesMax: config.bytes.readBuffer }),
        partBuffers: createPartBuffers({ bytesMax: config.bytes.writeBuffer }),
        timeoutMs: config.storeTimeoutSeconds * 1_000,
      },
    ),
  )
  const blobs = stores.primary
  await requireUsable(blobs, log)
  const reader = opened.use(
    openSnapshotReader(lookups, {
      url: database.url,
      entriesMax: LOOKUP_ENTRIES_MAX,
      onError,
      // This connection lives as long as the node serves: it is what tells a newer release that an older one runs.
      prepare: (client) => holdSchema(client, migrations.length),
    }),
  )
  await reader.connect()
  const rateGuard = opened.use(
    createRateGuard({
      bytesPerSecondMin: config.bytes.ratePerSecondMin,
      windowMs: config.bytes.rateWindowSeconds * 1_000,
    }),
  )
  const metrics = createMetrics({
    manifests: () => countManifests(db),
    uploadsOpen: () => countUploads(db),
    readersBehind: async () => [...(await readersBehind(db)), ...(await logReadersBehind(db))],
    webhooksWaiting: () => waitingDeliveries(db),
    pool: () => db.poolSize(),
  })
  const auth = await authOf(config, db, log)
  const watch = opened.use(
    await watchReadiness({ checks: { database: () => regionRow(db), 'blob store': () => blobs.check() } }),
  )
  const stack = opened.move()
  return {
    config,
    name: config.region,
    epoch,
    instance: randomUUID(),
    db,
    lookups: reader,
    blobs,
    stores,
    blobCache: createBlobCache({ bytesMax: config.bytes.cache / 2 }),
    manifests: createManifestCache({ db, bytesMax: config.bytes.cache / 2 }),
    redirects: redirectRule(config),
    rateGuard,
    limits: config.registry,
    auth,
    peers:
      config.peerKeys === undefined
        ? undefined
        : createPeerVerifier({ region: config.region, keys: config.peerKeys }),
    log,
    metrics,
    pulls: config.events.pullSeconds === 0 ? undefined : createPullCounter(),
    reach: options.reach ?? noFailpoints,
    databaseUrl: database.url,
    failed: database.failed,
    readiness: async () => watch.now(),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

function redirectRule({ redirect }: Config): Region['redirects'] {
  const excepted = createAddressMatcher(redirect.except)
  return (bytes, address) => redirect.on && bytes >= redirect.bytesMin && !excepted(address)
}

/** What the operator has to change is told at start; a store that is away for the moment is waited for, unready. */
async function requireUsable(blobs: BlobStore, log: Log): Promise<void> {
  try {
    await blobs.check()
  } catch (thrown) {
    if (!(thrown instanceof StoreError) || !thrown.retryable) throw thrown
    log.warn({ error: thrown }, 'the blob store is out of reach: pulls and pushes of blobs wait for it')
  }
}

async function databaseOf(
  config: Config,
  context: { directory: string; log: Log; opened: AsyncDisposableStack },
): Promise<{ url: string; failed: Promise<Error> }> {
  if (config.database.url !== undefined) {
    return { url: config.database.url, failed: new Promise(() => {}) }
  }
  return context.opened.use(
    await startEmbeddedPostgres({
      directory: join(context.directory, 'postgres'),
      onRestart: (reason) =>
        context.log.error({ reason }, 'the embedded Postgres ended and is started again'),
    }),
  )
}

async function authOf(config: Config, db: Database, log: Log): Promise<Auth | undefined> {
  const { mode, htpasswdFile, anonymousPull, admins, tokenTtlSeconds } = config.auth
  if (mode === 'none' || htpasswdFile === undefined) return undefined
  const accounts = await openAccounts({
    path: htpasswdFile,
    onProblem: (error) =>
      log.error({ error }, 'the htpasswd file cannot be used; the accounts stay as they were'),
  })
  const keys = createKeyRing({
    store: {
      list: async () => listSigningKeys(db),
      insertIfAbsent: (key) =>
        db.transaction((transaction) =>
          insertSigningKeyIfAbsent(transaction, {
            ...key,
            privateJwk: { ...key.privateJwk },
            publicJwk: { ...key.publicJwk },
          }),
        ),
    },
  })
  return {
    policy: { open: false, anonymousPull },
    accounts,
    passwords: createPasswordChecker({ accounts }),
    tokens: createTokens({ keys, issuer: `portolan/${config.region}`, ttlSeconds: tokenTtlSeconds }),
    admins,
  }
}
