// Two regions as databases, without processes: what one wrote is numbered, read as events and applied in the other.

import { moveOutbox } from '#shared/db/event-log.ts'
import { pages } from '#shared/db/pages.ts'
import { placeAtPeer } from '#shared/db/places-at-peers.ts'
import { readShards } from '#shared/db/shard-log.ts'
import { openSnapshotReader } from '#shared/db/snapshot-reader.ts'
import { type CloudEvent, toCloudEvent } from '#shared/events/cloud-event.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { createRegisterApplier } from '#shared/replication/apply.ts'
import { receiveEvents, type Taken } from '#shared/replication/receive-events.ts'
import { openTestDatabase, type TestDatabase } from './database.ts'
import type { Cleanup } from './postgres.ts'

/** Reads which tags of a repository show. */
export function tagReader(
  t: Cleanup,
  url: string,
): (repository: RepositoryName) => Promise<readonly string[]> {
  const reader = openSnapshotReader(pages, { url, entriesMax: 100, onError: () => {} })
  t.after(() => reader[Symbol.asyncDispose]())
  return async (repository) => (await reader.read({ repository, last: '', limit: 100 }))?.names ?? []
}

export interface RegionDatabase extends TestDatabase {
  readonly name: string
  /** Tags of a repository that show. */
  tags(repository: RepositoryName): Promise<readonly string[]>
}

export async function openRegionDatabase(t: Cleanup, name: string): Promise<RegionDatabase> {
  const database = await openTestDatabase(t)
  await database.query('update region set name = $1', [name])
  return { ...database, name, tags: tagReader(t, database.url) }
}

/** Numbers what is in the outbox; the events of a shard behind a place, whole. */
export async function eventsOf(
  { db, name }: RegionDatabase,
  after: { shard: number; epoch: number; seq: number },
): Promise<CloudEvent[]> {
  await db.transaction((transaction) => moveOutbox(transaction, { limit: 10_000 }))
  const events = await readShards(db, { after: [after], limitPerShard: 10_000, bytesMax: 2 ** 26 })
  return events.map((event) => toCloudEvent(name, event))
}

export async function receive(
  { db }: RegionDatabase,
  options: { origin: string; shard: number; events: readonly CloudEvent[] },
): Promise<Taken> {
  return receiveEvents(db, { ...options, applier: createRegisterApplier(Date.now) })
}

/** Brings everything of the shard from one region to the other, in batches. */
export async function follow(
  from: RegionDatabase,
  to: RegionDatabase,
  { shard, batch = 200 }: { shard: number; batch?: number },
): Promise<void> {
  const place = await placeAtPeer(to.db, { origin: from.name, shard })
  const events = await eventsOf(from, place)
  for (let at = 0; at < events.length; at += batch)
    await receive(to, { origin: from.name, shard, events: events.slice(at, at + batch) })
}
