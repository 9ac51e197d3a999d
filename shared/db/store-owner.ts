// What the database knows about the blob store that it uses: its own identity, whether any row names the store, and the
// largest number of objects with a row that a sweep has counted. The store's marker (shared/blobs/store-owner.ts) is
// compared with it.

import type { BlobStore } from '#shared/blobs/blob-store.ts'
import type { KnownRows } from '#shared/blobs/store-owner.ts'
import { blobKeysInUse } from './blob-keys.ts'
import { one, type Queryable, statement } from './statement.ts'

const identity = statement<{ identity: string }>('database-identity', `select identity::text from region`)

/** Returns the uuid of this database. A dump, a backup and a standby keep it. A newly created database has another. */
export async function databaseIdentity(db: Queryable): Promise<string> {
  return (await one(db, identity)).identity
}

const named = statement<{ named: boolean }>(
  'store-named',
  `select exists (select from blob where store = :store) as named`,
)

/** Returns what this database knows of a store, to decide who owns it. */
export function knownRows(db: Queryable, store: BlobStore): KnownRows {
  return {
    any: async () => (await one(db, named, { store: store.name })).named,
    among: (keys) => blobKeysInUse(db, { store, keys }),
  }
}

const others = statement<{ store: string }>(
  'other-stores',
  `select distinct store from blob where store <> :store
   union select distinct store from upload where store <> :store and repository <> ''`,
)

/** Returns stores other than this one that rows name. */
export async function otherStores(db: Queryable, store: string): Promise<string[]> {
  return (await db.rows(others, { store })).map((row) => row.store)
}

const raise = statement<{ seen: number }>(
  'raise-blobs-seen',
  // Writes only if the value changes, because a write invalidates every cached read.
  `with raised as (
     update region set blobs_seen = :named::bigint where blobs_seen < :named::bigint
   )
   select greatest(blobs_seen, :named::bigint) as seen from region`,
)

/**
 * Records the number of objects with a row that a sweep counted. Returns the greatest number that any sweep has
 * counted.
 */
export async function raiseBlobsSeen(db: Queryable, count: number): Promise<number> {
  return (await one(db, raise, { named: count })).seen
}
