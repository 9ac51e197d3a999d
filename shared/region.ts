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
import { type BlobStore, StoreError, type StoreOwner } from './blobs/blob-store.ts'
import { createByteBudget } from './blobs/byte-budget.ts'
import { volumesOf } from './blobs/files/volumes.ts'
import { createRateGuard, type RateGuard } from './blobs/minimum-rate.ts'
import { createPartBuffers } from './blobs/objects/part-buffers.ts'
import { type BlobStores, openBlobStores } from './blobs/open-store.ts'
import { NOT_WATCHED, type Ownership, watchOwnership } from './blobs/ownership.ts'
import { type Config, ConfigError } from './config/load.ts'
import { countDamagedBlobs } from './db/blobs.ts'
import { type Database, openDatabase } from './db/connect.ts'
import { readersBehind } from './db/event-cursors.ts'
import { isUnreachable } from './db/failures.ts'
import { explaining } from './db/first-contact.ts'
import { logReadersBehind } from './db/log-readers.ts'
import { type Found, type Lookup, lookups } from './db/lookups.ts'
import { countManifests } from './db/memberships.ts'
import { holdSchema, migrate, readMigrations } from './db/migrate.ts'
import { type OutageOptions, watchOutages } from './db/outage.ts'
import { regionRow } from './db/region.ts'
import { createServerCheck } from './db/server.ts'
import { insertSigningKeyIfAbsent, listSigningKeys } from './db/signing-keys.ts'
import { openSnapshotReader, type SnapshotReader } from './db/snapshot-reader.ts'
import type { Queryable } from './db/statement.ts'
import { databaseIdentity, knownRows } from './db/store-owner.ts'
import { countUploads } from './db/uploads.ts'
import { waitingDeliveries } from './db/webhook-deliveries.ts'
import { makeDurableDirectory } from './embedded/durable-directory.ts'
import { startEmbeddedPostgres } from './embedded/postgres.ts'
import { OperatorError } from './errors.ts'
import { createLog, type Log } from './observability/log.ts'
import { createMetrics, type Metrics } from './observability/metrics.ts'
import type { Readiness } from './observability/probe-server.ts'
import { watchReadiness } from './observability/readiness.ts'
import { type BlobHealth, createBlobHealth } from './registry/blob-health.ts'
import { noFailpoints, type ReachFailpoint } from './registry/failpoints.ts'
import { createManifestCache, type ManifestCache } from './registry/manifest-cache.ts'
import { createPullCounter, type PullCounter } from './registry/pull-counter.ts'
import { sealStoredSecrets } from './registry/seal-stored-secrets.ts'
import type { Sealer } from './secrets/sealer.ts'
import { openSealer } from './secrets/secrets-key.ts'

export type Sparse = Config['registry']['sparse']

/** Keys whose last answer is kept: a tag or digest each, some hundred bytes. */
const LOOKUP_ENTRIES_MAX = 200_000

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
  /** Where new blobs go. */
  readonly blobs: BlobStore
  /** Where rows may say that blobs are. */
  readonly stores: BlobStores
  /** This database, as markers of stores name it. */
  readonly owner: StoreOwner
  /** Whether `blobs` is this database's. */
  readonly ownership: Ownership
  /**
   * To be awaited by everything that writes rows for a client.
   * @throws StoreError 'full' when the embedded database's volume is below the floor
   */
  requireDatabaseRoom(): Promise<void>
  readonly blobCache: BlobCache
  readonly blobHealth: BlobHealth
  readonly manifests: ManifestCache
  /** Whether a pull of so many bytes by a client at this address is sent to the object store. */
  readonly redirects: (bytes: number, address: string) => boolean
  readonly rateGuard: RateGuard
  readonly limits: Config['registry']
  /** undefined: nobody is asked who they are. */
  readonly auth: Auth | undefined
  /** Seals and opens secrets in rows; undefined: there is no key, so nothing that holds a secret can be written. */
  readonly sealer: Sealer | undefined
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
  /** What a check every few seconds says: asking costs nothing. */
  readiness(): Promise<Readiness>
}

export interface RegionOptions {
  /** Test seam: see failpoints.ts. */
  reach?: ReachFailpoint
  /** Opens the region without asking who owns its store: only the command that adopts one may. */
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
  const checkServer = createServerCheck({
    onRaised: (raised) =>
      log.warn(
        { epoch: raised },
        'the database was restored or taken over: the epoch is raised, orphans stay for seven days',
      ),
  })
  const pools = {
    url: database.url,
    onIdleError: onError,
    onConnect: checkServer,
    onUnreachable: (error: unknown) => void outage.report(error),
  }
  const { connections } = config.database
  const db = opened.use(openDatabase({ ...pools, connections, work: 'write' }))
  const reads = opened.use(openDatabase({ ...pools, connections: Math.ceil(connections / 2), work: 'read' }))
  const sealer = await openSealer({
    configured: config.secretsKeys,
    directory,
    mayMake: config.database.embedded,
  })
  await sealStoredSecrets({ db, sealer, log })
  const floorBytes = config.bytes.freeMin
  const blobDirectory = join(directory, 'blobs')
  if (config.blobs.kind === 'file') await makeDurableDirectory(blobDirectory, { mode: 0o700 })
  const volumes = await volumesOf(config, { blobDirectory, directory })
  const stores = opened.use(
    await openBlobStores(
      { primary: config.blobs, all: config.stores },
      {
        directory: blobDirectory,
        freeBytesMin: floorBytes,
        volume: volumes.blobs,
        readBudget: createByteBudget({ bytesMax: config.bytes.readBuffer }),
        partBuffers: createPartBuffers({ bytesMax: config.bytes.writeBuffer }),
        timeoutMs: config.storeTimeoutSeconds * 1_000,
      },
    ),
  )
  const blobs = stores.primary
  const owner = { region: config.region, database: await databaseIdentity(db) }
  const ownership =
    options.unowned === true ? NOT_WATCHED : opened.use(await ownershipOf({ blobs, owner, db, log }))
  // A store that was just found out of reach is not waited for twice.
  if (ownership.known()) await requireUsable(blobs, log)
  const reader = opened.use(
    openSnapshotReader(lookups, {
      url: database.url,
      entriesMax: LOOKUP_ENTRIES_MAX,
      onError,
      // This connection lives as long as the node serves: it is what tells a newer release that an older one runs.
      prepare: async (client) => {
        await checkServer(client)
        await holdSchema(client, migrations.length)
      },
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
    blobsDamaged: () => countDamagedBlobs(reads),
    readersBehind: async () => [...(await readersBehind(reads)), ...(await logReadersBehind(reads))],
    webhooksWaiting: () => waitingDeliveries(reads),
    pool: () => db.poolSize(),
    databaseRetries: () => db.retries(),
    freeBytes: async () => {
      const known = Object.entries(volumes).filter(([, volume]) => volume !== undefined)
      return Promise.all(known.map(async ([name, volume]) => ({ name, bytes: await volume.freeBytes() })))
    },
  })
  const blobHealth = opened.use(createBlobHealth({ db, stores, log, metrics }))
  const auth = accounts && authOf(config, { db, reads, accounts, sealer, log })
  const watch = opened.use(
    await watchReadiness({
      checks: {
        database: () => regionRow(reads),
        'blob store': () => unlessFull(() => blobs.check()),
        "the blob store's owner": () => unlessFull(() => ownership.require()),
      },
    }),
  )
  const stack = opened.move()
  return {
    config,
    name: config.region,
    instance: randomUUID(),
    db,
    reads,
    lookups: reader,
    blobs,
    stores,
    owner,
    ownership,
    requireDatabaseRoom: async () => volumes.database?.requireRoom(),
    blobCache: createBlobCache({ bytesMax: config.bytes.cache / 2 }),
    blobHealth,
    manifests: createManifestCache({ db: reads, bytesMax: config.bytes.cache / 2 }),
    redirects: redirectRule(config),
    rateGuard,
    limits: config.registry,
    auth,
    sealer,
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
    readiness: async () => watch.now(),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

function redirectRule({ redirect }: Config): Region['redirects'] {
  const excepted = createAddressMatcher(redirect.except)
  return (bytes, address) => redirect.on && bytes >= redirect.bytesMin && !excepted(address)
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

/** What the operator has to change is told at start; a store that is away for the moment is waited for, unready. */
async function requireUsable(blobs: BlobStore, log: Log): Promise<void> {
  try {
    await blobs.check()
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
  context: { db: Database; reads: Queryable; accounts: Accounts; sealer: Sealer | undefined; log: Log },
): Auth {
  const { db, reads, accounts, sealer, log } = context
  const { anonymousPull, admins, tokenTtlSeconds } = config.auth
  if (sealer === undefined) {
    throw new ConfigError([
      'PORTOLAN_AUTH=accounts signs tokens with keys that are kept encrypted in the database: set PORTOLAN_SECRETS_KEY, the same at every node (make one with `openssl rand -base64 32`)',
    ])
  }
  /** At most as many as keys are listed in the life of a process. */
  const told = new Set<string>()
  const tellClosed = (kid: string, reason: string): void => {
    if (told.has(kid)) return
    told.add(kid)
    log.error({ kid, reason }, 'a token signing key cannot be opened: it verifies tokens and signs none')
  }
  const keys = createKeyRing({
    store: {
      list: () => listSigningKeys(reads, sealer, tellClosed),
      insertIfAbsent: (key, closed) =>
        db.transaction((transaction) =>
          insertSigningKeyIfAbsent(transaction, sealer, {
            ...key,
            privateJwk: { ...key.privateJwk },
            publicJwk: { ...key.publicJwk },
            closed,
          }),
        ),
    },
  })
  return {
    policy: { open: false, anonymousPull },
    accounts,
    passwords: createPasswordChecker({
      accounts,
      onFailure: ({ name, address }) => log.warn({ account: name, address }, 'a login failed'),
    }),
    tokens: createTokens({ keys, issuer: `portolan/${config.region}`, ttlSeconds: tokenTtlSeconds }),
    admins,
  }
}

/** A full store is ready: whoever balances by readiness must not take the pulls away too. */
async function unlessFull(check: () => Promise<unknown>): Promise<void> {
  try {
    await check()
  } catch (thrown) {
    if (!(thrown instanceof StoreError && thrown.kind === 'full')) throw thrown
  }
}
