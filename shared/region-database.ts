// Opens a region's database: starts the embedded one or connects to the configured one, updates its schema, and opens
// the pools for writes and for reads, and the connection for lookups. An outage is logged once, however many operations
// fail.
//
// Each part is registered on the caller's stack as soon as it is open, so a start that fails midway leaves nothing
// behind.

import { join } from 'node:path'
import type { Config } from './config/load.ts'
import { type Database, openDatabase } from './db/connect.ts'
import { isUnreachable } from './db/failures.ts'
import { explaining } from './db/first-contact.ts'
import { type Found, type Lookup, lookups } from './db/lookups.ts'
import { holdSchema, migrate, readMigrations } from './db/migrate.ts'
import { type OutageOptions, watchOutages } from './db/outage.ts'
import { type NamePage, type PageKey, pages } from './db/pages.ts'
import { createServerCheck } from './db/server.ts'
import { openSnapshotReader, type SnapshotReader } from './db/snapshot-reader.ts'
import type { Queryable } from './db/statement.ts'
import { startEmbeddedPostgres } from './embedded/postgres.ts'
import type { Log } from './observability/log.ts'

/** Keys whose last result is cached: a tag or digest each, a few hundred bytes. */
const LOOKUP_ENTRIES_MAX = 200_000
/** Cached pages of lists: a hundred names are about 10 KB. */
const PAGE_ENTRIES_MAX = 4_000
const PAGE_BYTES_MAX = 16 * 1024 * 1024

export interface RegionDatabase {
  /** The configured URL, or the embedded database's. */
  readonly url: string
  /** For writes, and for reads that belong to a write. */
  readonly db: Database
  /** For reads. Writes cannot use up its connections. */
  readonly reads: Queryable
  /** Resolves if the embedded database is lost for good. */
  readonly failed: Promise<Error>
  /**
   * Logs work that failed and will be retried. An outage of the database is logged once, however many operations fail.
   */
  readonly logFailure: (error: unknown, sentence: string) => void
  /** True from a failure until the database has responded again for a moment. */
  inTrouble(): boolean
  /** Connects the readers. From then on, no release that cannot read this schema starts, and none may change it. */
  openReaders(): Promise<RegionReaders>
}

/** Exact reads at memory speed (db/snapshot-reader.ts). Lists use a separate connection, so no pull waits for one. */
export interface RegionReaders {
  readonly lookups: SnapshotReader<Lookup, Found>
  readonly pages: SnapshotReader<PageKey, NamePage>
}

export interface RegionDatabaseContext {
  /** The region's own directory. */
  readonly directory: string
  readonly log: Log
  readonly opened: AsyncDisposableStack
}

/** @throws OperatorError if the database cannot be reached or its schema cannot be used */
export async function openRegionDatabase(
  config: Config,
  { directory, log, opened }: RegionDatabaseContext,
): Promise<RegionDatabase> {
  const { url, failed } = await databaseOf(config, { directory, log, opened })
  const migrations = await readMigrations()
  await explaining(url, () => migrate(url, config.region, migrations))
  const outage = opened.use(watchOutages({ url, ...outageLines(log) }))
  const onError = (error: unknown) => {
    if (!outage.report(error)) log.warn({ error }, 'the database connection had an error')
  }
  const checkServer = createServerCheck({
    onRaised: (raised) =>
      log.warn(
        { epoch: raised },
        'the database was restored or failed over: the epoch is raised, and orphaned bytes are kept for seven days',
      ),
  })
  const pools = {
    url,
    onIdleError: onError,
    onConnect: checkServer,
    onUnreachable: (error: unknown) => void outage.report(error),
  }
  const { connections } = config.database
  return {
    url,
    failed,
    db: opened.use(openDatabase({ ...pools, connections, work: 'write' })),
    reads: opened.use(openDatabase({ ...pools, connections: Math.ceil(connections / 2), work: 'read' })),
    logFailure(error, sentence) {
      if (!isUnreachable(error) || !outage.report(error)) log.error({ error }, sentence)
    },
    inTrouble: () => outage.underWay(),
    async openReaders() {
      const answers = opened.use(
        openSnapshotReader(lookups, {
          url,
          entriesMax: LOOKUP_ENTRIES_MAX,
          onError,
          // This connection lives as long as the node serves. It tells a newer release that an older one is running.
          prepare: async (client) => {
            await checkServer(client)
            await holdSchema(client, migrations.length)
          },
        }),
      )
      await answers.connect()
      // Connected by the first list: most processes never serve one.
      const lists = opened.use(
        openSnapshotReader(pages, {
          url,
          entriesMax: PAGE_ENTRIES_MAX,
          bytesMax: PAGE_BYTES_MAX,
          onError,
          prepare: checkServer,
        }),
      )
      return { lookups: answers, pages: lists }
    },
  }
}

async function databaseOf(
  config: Config,
  { directory, log, opened }: RegionDatabaseContext,
): Promise<{ url: string; failed: Promise<Error> }> {
  if (config.database.url !== undefined) {
    return { url: config.database.url, failed: new Promise(() => {}) }
  }
  return opened.use(
    await startEmbeddedPostgres({
      directory: join(directory, 'postgres'),
      onRestart: (reason) => log.error({ reason }, 'the embedded Postgres ended and is being restarted'),
    }),
  )
}

function outageLines(log: Log): Pick<OutageOptions, 'onLost' | 'onBack' | 'onBroken'> {
  return {
    onLost: (error) => log.error({ error }, 'the database is unreachable: requests wait or are answered 503'),
    onBack: (seconds) => log.info({ seconds }, 'the database is back'),
    onBroken: (error) => log.warn({ error }, 'a connection to the database was lost; new ones can be opened'),
  }
}
