// Applies the history of simulated regions to real databases. Pushes, deletes, the relay, the log and merges are the
// statements of shared/db and shared/replication. A region is a database, with its clock in a setting of the session.
// Each history has a separate repository, so all histories share the databases, which are created once, and a history
// shares the shard of its name with others.

import assert from 'node:assert/strict'
import { commitBlob } from '#shared/db/commit-blob.ts'
import { deleteConflicts, tagConflicts } from '#shared/db/conflicts.ts'
import { type Database, openDatabase } from '#shared/db/connect.ts'
import { moveOutbox } from '#shared/db/event-log.ts'
import { deleteMembership } from '#shared/db/memberships.ts'
import { placeAtPeer } from '#shared/db/places-at-peers.ts'
import { pushManifestRow } from '#shared/db/push-manifest.ts'
import { readRegisters } from '#shared/db/read-registers.ts'
import { deleteRepository, ensureRepository, repositoryExists } from '#shared/db/repositories.ts'
import { readShards } from '#shared/db/shard-log.ts'
import { statement } from '#shared/db/statement.ts'
import { deleteTag } from '#shared/db/tags.ts'
import { toCloudEvent } from '#shared/events/cloud-event.ts'
import { type RepositoryName, shardOf, type Tag } from '#shared/oci/reference.ts'
import { createRegisterApplier, storeCarried } from '#shared/replication/apply.ts'
import { mergeRegisters } from '#shared/replication/merge.ts'
import { receiveEvents } from '#shared/replication/receive-events.ts'
import { type Cleanup, testDatabase } from '../support/postgres.ts'
import { manifestPush, provenance } from '../support/push.ts'
import { tagReader } from '../support/two-regions.ts'
import type { Operation } from './operations.ts'
import type { SqlNames } from './sql-content.ts'

export interface SqlRegion {
  readonly name: string
  readonly db: Database
  /** Visible tags of a repository. */
  tags(repository: RepositoryName): Promise<readonly string[]>
  /** Positions of the facts of the history in the log of its shard. */
  factsAt: number[]
}

const setUp = [
  statement<never>('sim-name', `update region set name = :name`),
  // Only here: the history sets the region's clock.
  statement<never>(
    'sim-clock',
    `create or replace function hlc_now() returns bigint language sql volatile
       as $$ select current_setting('simulation.h')::bigint $$`,
  ),
]
const setClock = statement<never>('sim-set-clock', `select set_config('simulation.h', :h, false)`)
/** Notifications are not facts. */
const IS_FACT = `type !~ '[.](push|delete|conflict|uploaded|mounted)[.]v1$'`
const factRows = statement<{ seq: number }>(
  'sim-facts',
  `select seq from event_log
   where repository = :repository and ${IS_FACT} order by epoch, pos`,
)
const rowsUpTo = statement<{ rows: number }>(
  'sim-rows-up-to',
  `select count(*) as rows from outbox where id <= (
     select id from outbox where repository = :repository and ${IS_FACT}
     order by id limit 1 offset :count::int - 1)`,
)
const sweep = statement<never>(
  'sim-sweep',
  `update tag as t set alive = false
   from repository as r, membership as m
   where r.name = :repository and t.repository_id = r.id and m.repository_id = r.id and m.kind = 'manifest'
     and m.digest = t.digest and t.alive and ((t.h, t.origin) <= (m.dead_h, m.dead_origin)
       or (t.h, t.origin) <= (r.dead_h, r.dead_origin))`,
)

export async function openSqlRegion(t: Cleanup, name: string): Promise<SqlRegion> {
  const url = await testDatabase(t)
  const db = openDatabase({ url, connections: 1, onIdleError: () => {} })
  t.after(() => db[Symbol.asyncDispose]())
  const [naming, clock] = setUp
  assert.ok(naming && clock)
  await db.rows(naming, { name })
  await db.rows(clock)
  return { name, db, tags: tagReader(t, url), factsAt: [] }
}

export interface SqlHistory {
  readonly repository: RepositoryName
  readonly names: SqlNames
  readonly regions: ReadonlyMap<string, SqlRegion>
  readonly nowMs: number
}

export async function replay(history: SqlHistory, operations: readonly Operation[]): Promise<void> {
  for (const region of history.regions.values()) region.factsAt = []
  for (const [index, operation] of operations.entries()) {
    try {
      await perform(history, operation)
    } catch (thrown) {
      const text = JSON.stringify(operation, (_, value) => (typeof value === 'bigint' ? `${value}` : value))
      throw new Error(`operation ${index}, ${text}`, { cause: thrown })
    }
  }
}

function regionOf({ regions }: SqlHistory, name: string): SqlRegion {
  const region = regions.get(name)
  if (region === undefined) throw new Error(`no region ${name}`)
  return region
}

async function perform(history: SqlHistory, operation: Operation): Promise<void> {
  const { repository } = history
  switch (operation.kind) {
    case 'number':
      await number(regionOf(history, operation.region), { repository, count: operation.count })
      break
    case 'apply':
      await apply(history, operation)
      break
    case 'sweep':
      await regionOf(history, operation.region).db.rows(sweep, { repository })
      break
    case 'read-through':
      await tell(history, { from: operation.from, to: operation.to, tag: operation.name })
      break
    case 'compare':
      await tell(history, { from: operation.b, to: operation.a, tag: null })
      await tell(history, { from: operation.a, to: operation.b, tag: null })
      break
    default: {
      const region = regionOf(history, operation.region)
      await region.db.rows(setClock, { h: String(operation.clock) })
      const done = await write(history, region, operation)
      assert.equal(done, operation.done, `${operation.kind} was ${done ? 'done' : 'refused'}`)
    }
  }
}

async function write(
  { repository, names }: SqlHistory,
  { db, name: origin }: SqlRegion,
  operation: Extract<Operation, { done: boolean }>,
): Promise<boolean> {
  const common = { repository, shard: shardOf(repository), origin, provenance }
  switch (operation.kind) {
    case 'push': {
      const content = names.manifests.get(operation.digest)
      assert.ok(content)
      if (operation.done) {
        await ensureRepository(db, { name: repository, origin })
        for (const { target, digest } of content.references) {
          if (target !== 'blob') continue
          const object = { key: digest.slice(7, 39), size: 1, digest }
          await commitBlob(db, { ...common, store: 'file', object, upload: null })
        }
      }
      const tags = operation.tags as Tag[]
      const facts = {
        repository,
        digest: content.digest,
        size: content.bytes.length,
        mediaType: content.mediaType,
      }
      const push = manifestPush(repository, '', { ...content, origin, tags, facts })
      return (await pushManifestRow(db, push)).kind === 'pushed'
    }
    case 'delete-tag':
      return (
        (await db.transaction((tx) => deleteTag(tx, { ...common, tag: operation.name as Tag }))) !== undefined
      )
    case 'delete-repository':
      return (
        (await db.transaction((tx) => deleteRepository(tx, { name: repository, origin, provenance }))) !==
        undefined
      )
    default: {
      const kind = operation.kind === 'delete-link' ? 'blob' : 'manifest'
      const digest = names.digestOf(operation.digest)
      return (
        (await db.transaction((tx) => deleteMembership(tx, { ...common, kind, digest }))).kind === 'deleted'
      )
    }
  }
}

/** The relay moves the outbox up to its next facts of this history. */
async function number(
  region: SqlRegion,
  { repository, count }: { repository: RepositoryName; count: number },
): Promise<void> {
  if (count === 0) return
  const [row] = await region.db.rows(rowsUpTo, { repository, count })
  assert.ok(row && row.rows >= count)
  const moved = await region.db.transaction((tx) => moveOutbox(tx, { limit: row.rows }))
  assert.equal(moved, row.rows)
  region.factsAt = (await region.db.rows(factRows, { repository })).map(({ seq }) => seq)
}

async function apply(
  history: SqlHistory,
  { from, to, end }: { from: string; to: string; first: number; end: number },
): Promise<void> {
  const [origin, region] = [regionOf(history, from), regionOf(history, to)]
  const last = origin.factsAt[end - 1]
  if (last === undefined) return
  const shard = shardOf(history.repository)
  const cursor = await placeAtPeer(region.db, { origin: origin.name, shard })
  // Some events that were already applied are sent again.
  const after = { ...cursor, seq: Math.max(0, cursor.seq - 2) }
  const logged = await readShards(origin.db, { after: [after], limitPerShard: 10_000, bytesMax: 2 ** 26 })
  const events = logged.filter(({ seq }) => seq <= last).map((event) => toCloudEvent(origin.name, event))
  const applier = createRegisterApplier(() => history.nowMs)
  const taken = await receiveEvents(region.db, { origin: origin.name, shard, events, applier })
  assert.equal(taken.parked, 0)
}

/** Merges registers of one region into another before their events arrive. */
async function tell(
  { regions, repository, names }: SqlHistory,
  { from, to, tag }: { from: string; to: string; tag: string | null },
): Promise<void> {
  const [origin, region] = [regions.get(from), regions.get(to)]
  assert.ok(origin && region)
  const registers = await readRegisters(origin.db, { repository, tag })
  if (registers === undefined || (tag !== null && registers.tags.size === 0)) return
  // A peer returns the manifests with their registers, and what they reference is linked at once.
  const carried = [...names.manifests.values()].filter(({ digest }) => registers.manifests.has(digest))
  await storeCarried(
    region.db,
    carried.map((manifest) => ({ ...manifest, absent: [] })),
  )
  await region.db.transaction((tx) =>
    mergeRegisters(tx, {
      registers: new Map([[repository, registers]]),
      shard: shardOf(repository),
      byLog: false,
    }),
  )
}

export interface SqlState {
  readonly registers: Awaited<ReturnType<typeof readRegisters>>
  readonly exists: boolean
  readonly tags: readonly string[]
  readonly lost: readonly string[]
  readonly killed: readonly string[]
}

/** The final state of the region's database, in the names of content.ts. */
export async function stateOf({ repository, names }: SqlHistory, { db, tags }: SqlRegion): Promise<SqlState> {
  const page = { repository, lastName: '', lastH: '0', limit: 1_000 }
  const lost = await tagConflicts(db, page)
  const killed = await deleteConflicts(db, { ...page, lastSubject: '' })
  return {
    registers: await readRegisters(db, { repository, tag: null }),
    exists: await repositoryExists(db, repository),
    tags: await tags(repository),
    lost: lost
      .map((one) => `${one.name} ${one.h} ${one.origin} ${names.nameOf(one.digest)} ${one.alive}`)
      .toSorted(),
    killed: killed
      .map((one) => `${names.nameOf(one.subject)} ${one.h} ${one.origin} by ${one.deadH} ${one.deadOrigin}`)
      .toSorted(),
  }
}
