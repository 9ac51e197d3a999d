// The bytes of small blobs, in rows. Values are stored uncompressed, because pushed content is already compressed. A
// row that fits a page stays in it, so most blobs cost one row and no second table.

import { maybe, one, type Queryable, statement } from './statement.ts'

const insert = statement<never>(
  'insert-blob-bytes',
  `insert into blob_bytes (key, bytes) values (:key, :bytes)`,
)

/** The row is durable when this resolves. The key must be new. */
export async function insertBlobBytes(db: Queryable, options: { key: string; bytes: Buffer }): Promise<void> {
  await db.rows(insert, options)
}

const read = statement<{ bytes: Buffer }>('read-blob-bytes', `select bytes from blob_bytes where key = :key`)

export async function readBlobBytes(db: Queryable, key: string): Promise<Buffer | undefined> {
  return (await maybe(db, read, { key }))?.bytes
}

const size = statement<{ size: number }>(
  'size-blob-bytes',
  `select octet_length(bytes) as size from blob_bytes where key = :key`,
)

/** Does not read the bytes. */
export async function sizeOfBlobBytes(db: Queryable, key: string): Promise<number | undefined> {
  return (await maybe(db, size, { key }))?.size
}

const remove = statement<never>('remove-blob-bytes', `delete from blob_bytes where key = any (:keys::text[])`)

export async function removeBlobBytes(db: Queryable, keys: readonly string[]): Promise<void> {
  await db.rows(remove, { keys })
}

const list = statement<{ key: string; size: number; modifiedAtMs: number }>(
  'list-blob-bytes',
  `select key, octet_length(bytes) as size, extract(epoch from created_at)::float8 * 1000 as "modifiedAtMs"
   from blob_bytes where key > :after order by key limit :limit`,
)

export async function listBlobBytes(
  db: Queryable,
  options: { after: string; limit: number },
): Promise<{ key: string; size: number; modifiedAtMs: number }[]> {
  return db.rows(list, options)
}

const sweep = statement<{ key: string }>(
  'sweep-blob-bytes',
  `delete from blob_bytes where key in (
     select key from blob_bytes
     where key > :after and key <= :until and created_at < clock_timestamp() - make_interval(secs => :grace_seconds)
       and not exists (select from blob where store = :store and blob.key = blob_bytes.key))
   returning key`,
)

/** Removes rows after one key up to another, if no blob row names them and they are older than the grace time. */
export async function sweepBlobBytes(
  db: Queryable,
  options: { store: string; after: string; until: string; graceSeconds: number },
): Promise<number> {
  const { graceSeconds, ...rest } = options
  return (await db.rows(sweep, { ...rest, grace_seconds: graceSeconds })).length
}

const clock = statement<{ now: number }>(
  'database-now',
  `select extract(epoch from clock_timestamp())::float8 * 1000 as now`,
)

/** Returns the database's clock, in milliseconds. */
export async function databaseNowMs(db: Queryable): Promise<number> {
  return (await one(db, clock)).now
}
