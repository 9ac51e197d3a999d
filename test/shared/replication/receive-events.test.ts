// Effects of another region's events here: rules R4 and R8.
// tests: shared/db/places-at-peers.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { placeAtPeer } from '#shared/db/places-at-peers.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { BadEventError } from '#shared/replication/parse-event.ts'
import { type Applier, applyParked, receiveEvents } from '#shared/replication/receive-events.ts'
import { openTestDatabase } from '../../support/database.ts'
import { testRegion } from '../../support/region.ts'

function event(seq: number, options: { type?: string; epoch?: number; origin?: string } = {}): CloudEvent {
  const { type = 'known', epoch = 1, origin = 'us' } = options
  return { id: `${origin}:${epoch}:2:${seq}`, type, data: { n: seq } } as unknown as CloudEvent
}

function applierOf(types: readonly string[], apply: (event: CloudEvent) => unknown): Applier {
  return {
    types: new Set(types),
    apply: async (_, { events }) => {
      for (const { event } of events) await apply(event)
    },
  }
}

function recorder() {
  const seen: string[] = []
  return { seen, applier: applierOf(['known'], (event) => seen.push(event.id)) }
}

const from = { origin: 'us', shard: 2 }

test('R8: duplicates are dropped, a batch with a gap is refused, and the cursor moves with the effect', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  const { seen, applier } = recorder()
  const receive = (...events: CloudEvent[]) => receiveEvents(db, { ...from, events, applier })
  assert.deepEqual(await receive(event(1), event(2)), { applied: 2, parked: 0, repeated: 0 })
  assert.deepEqual(await receive(event(1), event(2), event(3)), { applied: 1, parked: 0, repeated: 2 })
  await assert.rejects(receive(event(4), event(6)), /us:1:2:6 leaves a gap/)
  assert.deepEqual(await placeAtPeer(db, from), { shard: 2, epoch: 1, seq: 3 })
  await receive(event(4), event(1, { epoch: 2 }))
  assert.deepEqual(await placeAtPeer(db, from), { shard: 2, epoch: 2, seq: 1 })
  await assert.rejects(receive(event(2, { epoch: 3 })), /leaves a gap/)
  assert.deepEqual(await receive(event(5)), { applied: 0, parked: 0, repeated: 1 })
  assert.deepEqual(seen.slice(0, 3), ['us:1:2:1', 'us:1:2:2', 'us:1:2:3'])
  assert.deepEqual(seen.slice(-2), ['us:1:2:4', 'us:2:2:1'])
})

test('R8: an event whose effect fails does not move the cursor', async (t) => {
  const { region } = await testRegion(t)
  const applier = applierOf(['known'], () => Promise.reject(new Error('no')))
  await assert.rejects(receiveEvents(region.db, { ...from, events: [event(1)], applier }), /no/)
  assert.deepEqual(await placeAtPeer(region.db, from), { shard: 2, epoch: 1, seq: 0 })
})

test('R8: concurrent receivers apply each event once', async (t) => {
  const { region } = await testRegion(t)
  const { seen, applier } = recorder()
  const events = Array.from({ length: 20 }, (_, index) => event(index + 1))
  const all = await Promise.all(
    Array.from({ length: 5 }, () => receiveEvents(region.db, { ...from, events, applier })),
  )
  assert.equal(seen.length, 20)
  assert.equal(
    all.reduce((sum, { repeated }) => sum + repeated, 0),
    80,
  )
})

test('R4: an unknown type is parked and the rest continues; a later release applies it once, in order', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  const { seen, applier } = recorder()
  const events = [event(1), event(2, { type: 'later.v2' }), event(3), event(4, { type: 'later.v2' })]
  assert.deepEqual(await receiveEvents(db, { ...from, events, applier }), {
    applied: 2,
    parked: 2,
    repeated: 0,
  })
  assert.deepEqual(seen, ['us:1:2:1', 'us:1:2:3'])
  assert.equal(await applyParked(db, applier), 0)
  const late: CloudEvent[] = []
  const later = applierOf(['known', 'later.v2'], (parked) => late.push(parked))
  assert.equal(await applyParked(db, later), 2)
  assert.equal(await applyParked(db, later), 0)
  assert.deepEqual(late, [events[1], events[3]], 'as they came')
})

test("another origin's event in the batch is refused", async (t) => {
  const { region } = await testRegion(t)
  const events = [event(1, { origin: 'asia' })]
  await assert.rejects(
    receiveEvents(region.db, { ...from, events, applier: applierOf([], () => {}) }),
    /not an event of shard 2 of us/,
  )
})

test('an event whose data is wrong is parked with the reason, and the others of its batch count', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  const applied: string[] = []
  const applier = applierOf(['known'], async ({ id }) => {
    if (id.endsWith(':2')) throw new BadEventError('it says nothing')
    applied.push(id)
  })
  const events = [event(1), event(2), event(3)]
  assert.deepEqual(await receiveEvents(db, { ...from, events, applier }), {
    applied: 2,
    parked: 1,
    repeated: 0,
  })
  assert.deepEqual(applied.slice(-2), ['us:1:2:1', 'us:1:2:3'])
  assert.deepEqual(await placeAtPeer(db, from), { shard: 2, epoch: 1, seq: 3 })
  assert.equal(await applyParked(db, applier), 0, 'it is for somebody to look at')
})

test('a new epoch begins, and how far the old one was applied is kept for deaths to tell', async (t) => {
  const database = await openTestDatabase(t)
  const { applier } = recorder()
  const events = [event(1), event(2), event(1, { epoch: 3 })]
  await receiveEvents(database.db, { ...from, events, applier })
  assert.deepEqual(await database.query('select origin, shard, epoch, seq from peer_epoch'), [
    { origin: 'us', shard: 2, epoch: 1, seq: '2' },
  ])
})
