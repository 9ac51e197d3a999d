// Exact reads at the speed of memory: what a tag points to, and whether a repository holds a digest.
//
// The rule: an answer read under one pg_current_snapshot() is exactly what a fresh read under an equal snapshot would
// return, because the same transactions are visible to both. So each batch of requests sends ONE statement that
// returns the current snapshot and the rows of those keys that are not already known under the snapshot last seen; if
// the snapshot is still that one, the known rows are as good as read now, and nothing is ever stale. There is no
// invalidation to lose and nodes share nothing.
//
// It is exact only if all of this holds, and the code sees to it:
// - the server is not in recovery (a standby's snapshot text omits running transactions), the session is direct
//   (an answer carries pg_backend_pid(); through a transaction pooler it is not the connection's own): otherwise
//   nothing is cached and every key is read;
// - the read is one plain autocommitted SELECT without row locks, with no VOLATILE function that looks at rows, on
//   tables and parameters alone (no now(), no settings); nobody rewrites a table with TRUNCATE or COPY FREEZE;
// - each cached row carries the snapshot its own statement came with; if the answer's snapshot is not the one that was
//   assumed, the keys that were left out are read again in a second statement that leaves nothing out;
// - one connection owns one cache and both die together: a database after a crash or restore may repeat snapshots;
// - a request joins only a batch that is not yet written to the socket: it never gets an answer older than itself.
//
// Keys that a batch has more than once are read once. While a statement is under way the next batch fills up, so load makes batches larger, not queues longer. When the
// connection is lost the waiting requests are held for a bounded time and asked again: clients see a pause, not an
// error, while Postgres restarts.

import { LRUCache } from 'lru-cache'
import pg from 'pg'
import { meansUnreachable, UnreachableError } from './failures.ts'
import { endSession, limitedOptions, limitSession, limitsOf } from './session.ts'

/** Keys read in one statement: bounds the size of an answer; the rest waits for the next. */
const BATCH_KEYS_MAX = 512
/** Requests waiting in all; beyond this they are refused at once rather than kept in memory. */
const WAITING_MAX = 20_000
/** How long a request is held while the database is away: container clients give up on a second 503. */
const HOLD_MS = 8_000
const RECONNECT_DELAY_MS = 50
/** What a cached entry takes beside its key and row: the entry, the map, the list. */
const ENTRY_BYTES = 256

/** What is asked: one statement text answers keys, and decides what a row holds. */
export interface SnapshotQuery<Key, Row> {
  readonly name: string
  /**
   * A SELECT with the arrays of `parameters` as $1, $2, ...: for each key that has a row, that row with the key's
   * ordinal (1-based) as its first column, in arrays. Nothing else may decide what it returns.
   */
  readonly text: string
  /** Identifies the key in the cache. */
  id(key: Key): string
  /** Column arrays for $1, $2, ... */
  parameters(keys: readonly Key[]): unknown[]
  /** From the row's columns after the ordinal. */
  row(columns: readonly unknown[]): Row
  /** Keys read in one statement; BATCH_KEYS_MAX where rows are small. */
  readonly batchMax?: number
  /** What a row takes in memory, where rows differ much: with `bytesMax`, which bounds them all. */
  bytes?(row: Row): number
}

export interface SnapshotReader<Key, Row> extends AsyncDisposable {
  /** The key's row as of a moment between call and answer; undefined when there is none. */
  read(key: Key): Promise<Row | undefined>
  /** Connects before the first read, so that what stands in the way is told at start. Not to be called beside reads. */
  connect(): Promise<void>
  /** Counters for metrics and tests. */
  counts(): SnapshotReaderCounts
}

export interface SnapshotReaderCounts {
  readonly statements: number
  readonly hits: number
  readonly reads: number
  /** Statements sent because the snapshot had moved under keys that were left out. */
  readonly secondReads: number
}

export interface SnapshotReaderOptions {
  url: string
  /** Cached keys; the oldest go first. */
  entriesMax: number
  /** Of the cached rows in all, where the query tells their bytes. */
  bytesMax?: number
  /** How long a request is held while the database is away. */
  holdMs?: number
  onError(error: Error): void
  /** Runs on each new connection before the first read; rejecting, the connection is not used. */
  prepare?: (client: pg.Client) => Promise<void>
  /** Test seam: what the snapshot rule must never see. The `FOR SHARE` and standby variants of the stress test use it. */
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

/** Rows read under one snapshot are told apart by identity of this object. */
interface Snapshot {
  readonly text: string
}

interface Entry<Row> {
  readonly snapshot: Snapshot
  readonly row: Row | undefined
}

/** A connection and the cache that lives and dies with it. */
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

  /** One statement: the snapshot and the rows of the keys given, each asked once, cached if they may be. */
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
        // What the clients just answered send next arrives in one turn of the event loop: larger batches, a seventh less
        // work per read under load, and no wait when nobody is in line.
        if (queue.length > 0) await new Promise((turn) => setImmediate(turn))
      } catch (thrown) {
        await recover(thrown, batch)
      }
    }
  }

  /** After a failure nothing that was cached is trusted; requests still within their time are asked again. */
  async function recover(thrown: unknown, batch: readonly Waiting<Key, Row>[]): Promise<void> {
    const lost = session
    session = undefined
    if (lost !== undefined) endSession(lost.client)
    const error = thrown instanceof Error ? thrown : new Error('reading failed', { cause: thrown })
    options.onError(error)
    if (!meansUnreachable(thrown)) {
      // Without a batch it was no connection to be had, for whatever reason: nobody waits for what nobody repairs.
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
    // Everything that arrives in this turn of the event loop shares the first batch.
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
