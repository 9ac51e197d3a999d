// A region as a value: everything a service needs, made once from the configuration and disposed in reverse order.
// Nothing lives at module scope, so two regions fit in one process and share nothing.

import { randomUUID } from 'node:crypto'
import { join, resolve } from 'node:path'
import { createAddressMatcher } from './auth/challenge.ts'
import { type Accounts, openAccounts } from './auth/htpasswd.ts'
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
import { isUnreachable } from './db/failures.ts'
import { explaining } from './db/first-contact.ts'
import { logReadersBehind } from './db/log-readers.ts'
import { type Found, type Lookup, lookups } from './db/lookups.ts'
import { countManifests } from './db/memberships.ts'
import { holdSchema, migrate, readMigrations } from './db/migrate.ts'
import { type OutageOptions, watchOutages } from './db/outage.ts'
import { raiseEpochIfRestored, regionRow } from './db/region.ts'
import { insertSigningKeyIfAbsent, listSigningKeys } from './db/signing-keys.ts'
import { openSnapshotReader, type SnapshotReader } from './db/snapshot-reader.ts'
import type { Queryable } from './db/statement.ts'
import { countUploads } from './db/uploads.ts'
import { waitingDeliveries } from './db/webhook-deliveries.ts'
import { makeDurableDirectory } from './embedded/durable-directory.ts'
import { startEmbeddedPostgres } from './embedded/postgres.ts'
import { OperatorError } from './errors.ts'
import { createLog, type Log } from './observability/log.ts'
import { createMetrics, type Metrics } from './observability/metrics.ts'
import type { Readiness } from './observability/probe-server.ts'
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
  /** For writes, and for reads that belong to one. */
  readonly db: Database
  /** For reads, on connections that no write can keep from them. */
  readonly reads: Queryable
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
  /** Logs work that failed and will be tried again; the database's absence is told once, whatever fails by it. */
  readonly logFailure: (error: unknown, sentence: string) => void
  readonly metrics: Metrics
  /** undefined: pulls are no events here. */
  readonly pulls: PullCounter | undefined
  readonly reach: ReachFailpoint
  /** Where this region's database is: given, or the embedded one's. */
  readonly databaseUrl: string
  /** Resolves when something that cannot be done without is lost for good. */
  readonly failed: Promise<Error>
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
  const directory = resolve(config.dataDir, config.region)
  await makeDurableDirectory(directory, { mode: 0o711 })
  // Before the database, which takes seconds the first time: what stands in the way is told at once.
  const accounts = await accountsOf(config, log)
  const database = await databaseOf(config, { directory, log, opened })
  const migrations = await readMigrations()
  await explaining(database.url, () => migrate(database.url, config.region, migrations))
  const outage = opened.use(watchOutages({ url: database.url, ...outageLines(log) }))
  const logFailure = (error: unknown, sentence: string) => {
    if (!isUnreachable(error) || !outage.report(error)) log.error({ error }, sentence)
  }
  const onError = (error: unknown) => {
    if (!outage.report(error)) log.warn({ error }, 'the database connection had an error')
  }
  const pools = {
    url: database.url,
    onIdleError: onError,
    onUnreachable: (error: unknown) => void outage.report(error),
  }
  const { connections } = config.database
  const db = opened.use(openDatabase({ ...pools, connections, work: 'write' }))
  const reads = opened.use(openDatabase({ ...pools, connections: Math.ceil(connections / 2), work: 'read' }))
  const raised = await raiseEpochIfRestored(db)
  if (raised !== undefined) {
    log.warn(
      { epoch: raised },
      'the database was restored or taken over: the epoch is raised, orphans stay for seven days',
    )
  }
  const { epoch } = await regionRow(db)
  if (config.blobs.kind === 'file') await makeDurableDirectory(join(directory, 'blobs'), { mode: 0o700 })
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
    manifests: () => countManifests(reads),
    uploadsOpen: () => countUploads(reads),
    readersBehind: async () => [...(await readersBehind(reads)), ...(await logReadersBehind(reads))],
    webhooksWaiting: () => waitingDeliveries(reads),
    pool: () => db.poolSize(),
  })
  const auth = accounts && authOf(config, { db, reads, accounts })
  const stack = opened.move()
  return {
    config,
    name: config.region,
    epoch,
    instance: randomUUID(),
    db,
    reads,
    lookups: reader,
    blobs,
    stores,
    blobCache: createBlobCache({ bytesMax: config.bytes.cache / 2 }),
    manifests: createManifestCache({ db: reads, bytesMax: config.bytes.cache / 2 }),
    redirects: redirectRule(config),
    rateGuard,
    limits: config.registry,
    auth,
    peers:
      config.peerKeys === undefined
        ? undefined
        : createPeerVerifier({ region: config.region, keys: config.peerKeys }),
    log,
    logFailure,
    metrics,
    pulls: config.events.pullSeconds === 0 ? undefined : createPullCounter(),
    reach: options.reach ?? noFailpoints,
    databaseUrl: database.url,
    failed: database.failed,
    readiness: () => readiness(db, blobs),
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
    if (!(thrown instanceof StoreError)) throw thrown
    if (!thrown.retryable) throw new OperatorError(thrown.message, { cause: thrown })
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

function outageLines(log: Log): Pick<OutageOptions, 'onLost' | 'onBack' | 'onBroken'> {
  return {
    onLost: (error) =>
      log.error({ error }, 'the database is out of reach: what needs it waits or answers 503'),
    onBack: (seconds) => log.info({ seconds }, 'the database is back'),
    onBroken: (error) => log.warn({ error }, 'a connection to the database was lost; others can be made'),
  }
}

/** undefined: nobody is asked who they are. */
async function accountsOf({ auth }: Config, log: Log): Promise<Accounts | undefined> {
  if (auth.mode === 'none' || auth.htpasswdFile === undefined) return undefined
  return openAccounts({
    path: auth.htpasswdFile,
    onProblem: (error) =>
      log.error({ error }, 'the htpasswd file cannot be used; the accounts stay as they were'),
  })
}

function authOf(
  config: Config,
  { db, reads, accounts }: { db: Database; reads: Queryable; accounts: Accounts },
): Auth {
  const { anonymousPull, admins, tokenTtlSeconds } = config.auth
  const keys = createKeyRing({
    store: {
      list: async () => listSigningKeys(reads),
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

async function readiness(db: Database, blobs: BlobStore): Promise<Readiness> {
  const parts: [string, () => Promise<unknown>][] = [
    ['database', () => regionRow(db)],
    ['blob store', () => blobs.check()],
  ]
  const reasons: string[] = []
  for (const [part, check] of parts) {
    try {
      await check()
    } catch (thrown) {
      reasons.push(`${part}: ${thrown instanceof Error ? thrown.message : 'failed'}`)
    }
  }
  return { ready: reasons.length === 0, reasons }
}
