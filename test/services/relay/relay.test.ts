// The sequencer: every event is logged once, in order and without gaps (test/faults/relay covers crashes). Also covers
// numbering after a restore.
// tests: shared/db/event-log.ts, shared/db/region.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import pg from 'pg'
import { logBounds, moveOutbox, outboxPending, readEvents, trimEvents } from '#shared/db/event-log.ts'
import { regionRow } from '#shared/db/region.ts'
import { connectionOptions } from '#shared/db/session.ts'
import { one, statement } from '#shared/db/statement.ts'
import { claimDeliveries } from '#shared/db/webhook-deliveries.ts'
import { openRegion, withStores } from '#shared/region.ts'
import { createOrphanSweep } from '../../../services/janitor/sweep-orphans.ts'
import { startRelay } from '../../../services/relay/service.ts'
import { eventually } from '../../support/eventually.ts'
import { HELD } from '../../support/held.ts'
import { push, repositoryName, tags } from '../../support/push.ts'
import { testRegion } from '../../support/region.ts'

const START = { epoch: 1, pos: 0 }

test('the relay logs a push as manifest, tags and notification, in that order', async (t) => {
  const { region } = await testRegion(t)
  const relay = await startRelay(region)
  await push(region.db, repositoryName('a/b'), 'one', { tags: tags('b', 'a') })
  await eventually(
    'the events',
    async () => (await readEvents(region.db, { after: START, limit: 10 })).length === 4,
  )
  const events = await readEvents(region.db, { after: START, limit: 10 })
  assert.deepEqual(
    events.map(({ type, subject }) => `${type.split('.').slice(3).join('.')} ${subject.split('@')[0]}`),
    ['manifest.put.v1 a/b', 'tag.set.v1 a/b:a', 'tag.set.v1 a/b:b', 'push.v1 a/b'],
  )
  await relay[Symbol.asyncDispose]()
})

test('trimming removes expired events from the beginning, a bounded number at a time', async (t) => {
  const { region } = await testRegion(t)
  const relay = await startRelay(region)
  await push(region.db, repositoryName('a/b'), 'one', { tags: tags('v1') })
  await eventually('the events', async () => (await logBounds(region.db)).head.pos === 3)
  await relay[Symbol.asyncDispose]()
  assert.equal(await trimEvents(region.db, { retentionSeconds: 60, readerSeconds: 60, limit: 100 }), 0)
  assert.equal(await trimEvents(region.db, { retentionSeconds: 0, readerSeconds: 60, limit: 2 }), 2)
  assert.deepEqual((await logBounds(region.db)).oldest, { epoch: 1, pos: 2 })
  assert.equal(await trimEvents(region.db, { retentionSeconds: 0, readerSeconds: 60, limit: 2 }), 1)
  assert.deepEqual(await logBounds(region.db), { head: { epoch: 1, pos: 3 }, oldest: { epoch: 1, pos: 3 } })
})

for (const [what, change] of [
  ['restoring a dump into another cluster', `system_identifier = '1'`],
  ['promoting a backup or standby', 'timeline = timeline - 1'],
] as const) {
  test(`R11: after ${what} the epoch is raised, numbering restarts under it, and orphans are kept`, async (t) => {
    const first = await testRegion(t)
    assert.equal((await regionRow(first.region.db)).epoch, 1)
    await push(first.region.db, repositoryName('a/b'), 'one')
    const relay = await startRelay(first.region)
    await eventually('the first events', async () => (await logBounds(first.region.db)).head.pos === 2)
    await relay[Symbol.asyncDispose]()
    const client = new pg.Client(connectionOptions(first.region.databaseUrl))
    await client.connect()
    await client.query(`update region set ${change}`)
    await client.end()

    const region = await openRegion(first.region.config)
    const again = await openRegion(first.region.config)
    assert.equal((await regionRow(region.db)).epoch, 2)
    assert.equal((await regionRow(again.db)).epoch, 2, 'raised once, however many processes start')
    await push(region.db, repositoryName('a/b'), 'two')
    const later = await startRelay(region)
    await eventually('the next events', async () => {
      const head = (await logBounds(region.db)).head
      return head.epoch === 2 && head.pos === 2
    })
    const events = await readEvents(region.db, { after: START, limit: 10 })
    assert.deepEqual(
      events.map(({ epoch, pos, seq }) => [epoch, pos, seq]),
      [
        [1, 1, 1],
        [1, 2, 2],
        [2, 1, 1],
        [2, 2, 2],
      ],
    )
    await later[Symbol.asyncDispose]()
    const stored = await withStores(region)
    const sweep = createOrphanSweep({
      ...stored,
      blobs: {
        ...stored.blobs,
        list: () => Promise.reject(new Error('the sweep looked for orphans')),
        dropUnfinished: () => Promise.reject(new Error('the sweep looked for uploads')),
      },
    })
    assert.equal(await sweep(new AbortController().signal, HELD), 0)
    await again[Symbol.asyncDispose]()
    await region[Symbol.asyncDispose]()
  })
}

test('polling an empty outbox assigns no transaction ID, so pulls stay cached beside an idle relay', async (t) => {
  const { region } = await testRegion(t)
  const assigned = statement<{ xid: string | null }>(
    'assigned-xid',
    'select pg_current_xact_id_if_assigned()::text as xid',
  )
  await region.db.transaction(async (transaction) => {
    assert.equal(await outboxPending(transaction), false)
    assert.equal((await one(transaction, assigned)).xid, null)
    // The other pollers behave the same way when there is nothing to do.
    assert.equal(await moveOutbox(transaction, { limit: 10 }), 0)
    assert.equal((await one(transaction, assigned)).xid, null)
    const subscriptions = [{ id: '00000000-0000-0000-0000-000000000000', room: 1, ordered: true }]
    assert.deepEqual(await claimDeliveries(transaction, { subscriptions, leaseSeconds: 1 }), [])
    assert.equal((await one(transaction, assigned)).xid, null)
  })
})
