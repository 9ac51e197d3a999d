// Exact reads at the speed of memory: what a tag points to, and whether a repository holds a digest.
//
// The rule: an answer read under one pg_current_snapshot() is exactly what a fresh read under an equal snapshot would
// return, because the same transactions are visible to both. Each batch of requests therefore sends ONE statement. It
// returns the current snapshot, and the rows of those keys that are not already known under the snapshot last seen. If
// the snapshot is still that one, the known rows are as good as read now, and nothing is ever stale. There are no
// invalidations that could be lost, and nodes share nothing.
//
// This is exact only if all of the following hold, and the code ensures them:
// - The server is not in recovery (a standby's snapshot text omits running transactions), and the session is direct (an
//   answer carries pg_backend_pid(), which differs from the connection's own through a transaction pooler). Otherwise
//   nothing is cached and every key is read.
// - The read is one plain autocommitted SELECT without row locks, with no VOLATILE function that reads rows, on tables
//   and parameters alone (no now(), no settings). No table is rewritten with TRUNCATE or COPY FREEZE.
// - Each cached row carries the snapshot of its own statement. If the answer's snapshot is not the assumed one, the
//   keys that were left out are read again in a second statement that leaves nothing out.
// - One connection owns one cache, and both end together: a database may repeat snapshots after a crash or restore.
// - A request joins only a batch that is not yet written to the socket, so it never gets an answer older than itself.
//
// A key that a batch contains more than once is read once. While a statement runs, the next batch fills up, so load
// makes batches larger, not queues longer. If the connection is lost, the waiting requests are held for a bounded time
// and sent again. Clients see a pause, not an error, while Postgres restarts.

import { LRUCache } from 'lru-cache'
import pg from 'pg'
import { meansUnreachable, UnreachableError } from './failures.ts'
import { endSession, limitedOptions, limitSession, limitsOf } from './session.ts'

/** Maximum number of keys in one statement. Bounds the size of an answer. The rest waits for the next statement. */
const BATCH_KEYS_MAX = 512
/** Maximum number of waiting requests in all. More are refused at once instead of being kept in memory. */
const WAITING_MAX = 20_000
/** How long a request is held while the database is away. Container clients give up on a second 503. */
const HOLD_MS = 8_000
const RECONNECT_DELAY_MS = 50
/** Memory of a cached entry besides its key and row: the entry, the map, the list. */
const ENTRY_BYTES = 256

/** A kind of read: one statement text that answers keys, and the content of a row. */
export interface SnapshotQuery<Key, Row> {
  readonly name: string
  /**
   * A SELECT with the arrays of `parameters` as $1, $2, ... For each key that has a row, it returns that row with the
   * key's ordinal (1-based) as its first column, in arrays. Its result must depend on nothing else.
   */
  readonly text: string
  /** Identifies the key in the cache. */
  id(key: Key): string
  /** Column arrays for $1, $2, ... */
  parameters(keys: readonly Key[]): unknown[]
  /** Makes a row from the columns after the ordinal. */
  row(columns: readonly unknown[]): Row
  /** Maximum number of keys in one statement. Without it, BATCH_KEYS_MAX, which suits small rows. */
  readonly batchMax?: number
  /** Returns the memory of a row, if rows differ much. Used with `bytesMax`, which bounds their sum. */
  bytes?(row: Row): number
}

export interface SnapshotReader<Key, Row> extends AsyncDisposable {
  /** Returns the key's row as of a moment between call and answer, or undefined if there is none. */
  read(key: Key): Promise<Row | undefined>
  /** Connects before the first read, so that obstacles are reported at start. Must not be called while reads run. */
  connect(): Promise<void>
  /** Counters for metrics and tests. */
  counts(): SnapshotReaderCounts
}

export interface SnapshotReaderCounts {
  readonly statements: number
  readonly hits: number
  readonly reads: number
  /** Statements sent because the snapshot had changed under keys that were left out. */
  readonly secondReads: number
}

export interface SnapshotReaderOptions {
  url: string
  /** Maximum number of cached keys. The oldest are removed first. */
  entriesMax: number
  /** Maximum sum of the cached rows' bytes, if the query tells their bytes. */
  bytesMax?: number
  /** How long a request is held while the database is away. */
  holdMs?: number
  onError(error: Error): void
  /** Runs on each new connection before the first read. If it rejects, the connection is not used. */
  prepare?: (client: pg.Client) => Promise<void>
  /**
   * Test seam: allows what breaks the snapshot rule. The `FOR SHARE` and standby variants of the stress test use it.
   */
  unsafe?: { cacheInRecovery?: boolean }
}

export class ReaderUnavailableError extends Error {
  override readonly name = 'ReaderUnavailableError'
}

interface Waiting<Key, Row> {
  readonly key: Key
  readonly id: string
  readonly giveUpAtMs: number
  resolve(row: Row | undefined): void
  reject(error: Error): void
}

/** The identity of this object tells which rows were read under one snapshot. */
interface Snapshot {
  readonly text: string
}

interface Entry<Row> {
  readonly snapshot: Snapshot
  readonly row: Row | undefined
}

/** A connection and the cache that belongs to it and ends with it. */
interface Session<Row> {
  readonly client: pg.Client
  readonly pid: number
  readonly entries: LRUCache<string, Entry<Row>>
  current: Snapshot | undefined
}

const SNAPSHOT_COLUMNS = 'pg_current_snapshot()::text, pg_backend_pid(), pg_is_in_recovery()'

export function openSnapshotReader<Key, Row>(
  query: SnapshotQuery<Key, Row>,
  options: SnapshotReaderOptions,
): SnapshotReader<Key, Row> {
  const holdMs = options.holdMs ?? HOLD_MS
  const snapshotOnly = { name: `${query.name}-snapshot`, text: `select ${SNAPSHOT_COLUMNS}` }
  const snapshotAndRows = {
    name: query.name,
    text: `select ${SNAPSHOT_COLUMNS}, answer.* from (select 1) as always left join lateral (${query.text}) as answer on true`,
  }
  let queue: Waiting<Key, Row>[] = []
  let session: Session<Row> | undefined
  let working = false
  let closed = false
  const counts = { statements: 0, hits: 0, reads: 0, secondReads: 0 }

  async function connect(): Promise<Session<Row>> {
    const limits = limitsOf('read')
    const client = new pg.Client(limitedOptions(options.url, limits))
    client.on('error', (error) => {
      options.onError(error)
      if (session?.client === client) session = undefined
    })
    await client.connect()
    try {
      await limitSession(client, limits)
      await options.prepare?.(client)
    } catch (thrown) {
      endSession(client)
      throw thrown
    }
    const { processID } = client as pg.Client & { processID: number }
    const entries = new LRUCache<string, Entry<Row>>({ max: options.entriesMax, ...sizes() })
    return { client, pid: processID, entries, current: undefined }
  }

  function sizes() {
    const { bytesMax } = options
    if (bytesMax === undefined) return {}
    const sizeCalculation = ({ row }: Entry<Row>, id: string) =>
      ENTRY_BYTES + 2 * id.length + (row === undefined ? 0 : (query.bytes?.(row) ?? 0))
    return { maxSize: bytesMax, sizeCalculation }
  }

  /** Sends one statement: the snapshot and the rows of the given keys, each read once, and cached if allowed. */
  async function ask(on: Session<Row>, waiting: readonly Waiting<Key, Row>[]): Promise<Snapshot | undefined> {
    counts.statements++
    const asked = new Map<string, Waiting<Key, Row>>()
    for (const one of waiting) if (!asked.has(one.id)) asked.set(one.id, one)
    const result = await on.client.query<unknown[]>({
      ...(asked.size === 0 ? snapshotOnly : snapshotAndRows),
      values: asked.size === 0 ? [] : query.parameters(Array.from(asked.values(), ({ key }) => key)),
      rowMode: 'array',
    })
    const [text, pid, inRecovery] = result.rows[0] as [string, number, boolean]
    const cacheable = pid === on.pid && (!inRecovery || options.unsafe?.cacheInRecovery === true)
    if (!cacheable) on.current = undefined
    else if (on.current?.text !== text) on.current = { text }
    const snapshot = on.current
    if (asked.size === 0) return snapshot
    const ids = [...asked.keys()]
    const rows = new Map<string, Row>()
    for (const columns of result.rows) {
      const ordinal = columns[3]
      if (typeof ordinal === 'number') rows.set(ids[ordinal - 1] ?? '', query.row(columns.slice(4)))
    }
    if (snapshot !== undefined) for (const id of ids) on.entries.set(id, { snapshot, row: rows.get(id) })
    for (const { id, resolve } of waiting) resolve(rows.get(id))
    return snapshot
  }

  async function answer(on: Session<Row>, batch: readonly Waiting<Key, Row>[]): Promise<void> {
    const assumed = on.current
    const asked: Waiting<Key, Row>[] = []
    const known: { waiting: Waiting<Key, Row>; row: Row | undefined }[] = []
    for (const waiting of batch) {
      const entry = assumed === undefined ? undefined : on.entries.get(waiting.id)
      if (entry !== undefined && entry.snapshot === assumed) known.push({ waiting, row: entry.row })
      else asked.push(waiting)
    }
    const snapshot = await ask(on, asked)
    if (known.length === 0) return
    if (snapshot !== undefined && snapshot === assumed) {
      counts.hits += known.length
      for (const { waiting, row } of known) waiting.resolve(row)
      return
    }
    counts.secondReads++
    await ask(
      on,
      known.map(({ waiting }) => waiting),
    )
  }

  async function work(): Promise<void> {
    while (queue.length > 0 && !closed) {
      let batch: Waiting<Key, Row>[] = []
      try {
        session ??= await connect()
        batch = queue.splice(0, query.batchMax ?? BATCH_KEYS_MAX)
        await answer(session, batch)
        // The next requests of the clients that were just answered arrive in one turn of the event loop. Waiting for it
        // makes batches larger and saves a seventh of the work per read under load. There is no wait if the queue is
        // empty.
        if (queue.length > 0) await new Promise((turn) => setImmediate(turn))
      } catch (thrown) {
        await recover(thrown, batch)
      }
    }
  }

  /** After a failure no cached row is trusted. Requests that are still within their time are sent again. */
  async function recover(thrown: unknown, batch: readonly Waiting<Key, Row>[]): Promise<void> {
    const lost = session
    session = undefined
    if (lost !== undefined) endSession(lost.client)
    const error = thrown instanceof Error ? thrown : new Error('reading failed', { cause: thrown })
    options.onError(error)
    if (!meansUnreachable(thrown)) {
      // An empty batch means that no connection could be made. Waiting would not help, so all queued requests fail.
      const failed = batch.length === 0 ? queue.splice(0) : batch
      for (const waiting of failed) waiting.reject(error)
      return
    }
    const cause = new UnreachableError(thrown)
    const nowMs = performance.now()
    const again: Waiting<Key, Row>[] = []
    for (const waiting of [...batch, ...queue]) {
      if (waiting.giveUpAtMs > nowMs) again.push(waiting)
      else waiting.reject(new ReaderUnavailableError('database out of reach', { cause }))
    }
    queue = again
    if (again.length > 0) await new Promise((resolve) => setTimeout(resolve, RECONNECT_DELAY_MS))
  }

  function start(): void {
    if (working) return
    working = true
    // All requests that arrive in this turn of the event loop share the first batch.
    setImmediate(() => {
      work()
        .catch(options.onError)
        .finally(() => {
          working = false
          if (queue.length > 0 && !closed) start()
        })
    })
  }

  return {
    read(key) {
      if (closed) return Promise.reject(new ReaderUnavailableError('the reader is closed'))
      if (queue.length >= WAITING_MAX) {
        return Promise.reject(new ReaderUnavailableError('too many reads are waiting'))
      }
      counts.reads++
      return new Promise((resolve, reject) => {
        queue.push({ key, id: query.id(key), giveUpAtMs: performance.now() + holdMs, resolve, reject })
        start()
      })
    },
    async connect() {
      session ??= await connect()
    },
    counts: () => ({ ...counts }),
    async [Symbol.asyncDispose]() {
      if (closed) return
      closed = true
      for (const waiting of queue) waiting.reject(new ReaderUnavailableError('the reader is closed'))
      queue = []
      await session?.client.end()
    },
  }
}
