// What another region's events do here: rules R4 and R8.
// tests: shared/db/places-at-peers.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { placeAtPeer } from '#shared/db/places-at-peers.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { type Appliers, applyParked, receiveEvents } from '#shared/replication/receive-events.ts'
import { testRegion } from '../../support/region.ts'

function event(seq: number, options: { type?: string; epoch?: number; origin?: string } = {}): CloudEvent {
  const { type = 'known', epoch = 1, origin = 'us' } = options
  return { id: `${origin}:${epoch}:2:${seq}`, type, data: { n: seq } } as unknown as CloudEvent
}

function recorder() {
  const seen: string[] = []
  const appliers: Appliers = { known: async (_transaction, { id }) => void seen.push(id) }
  return { seen, appliers }
}

const from = { origin: 'us', shard: 2 }

test('R8: what comes again is dropped, what leaves a hole is refused whole, and the cursor moves with the effect', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  const { seen, appliers } = recorder()
  const receive = (...events: CloudEvent[]) => receiveEvents(db, { ...from, events, appliers })
  assert.deepEqual(await receive(event(1), event(2)), { applied: 2, parked: 0, repeated: 0 })
  assert.deepEqual(await receive(event(1), event(2), event(3)), { applied: 1, parked: 0, repeated: 2 })
  await assert.rejects(receive(event(4), event(6)), /us:1:2:6 leaves a hole/)
  assert.deepEqual(await placeAtPeer(db, from), { shard: 2, epoch: 1, seq: 3 })
  await receive(event(4), event(1, { epoch: 2 }))
  assert.deepEqual(await placeAtPeer(db, from), { shard: 2, epoch: 2, seq: 1 })
  await assert.rejects(receive(event(2, { epoch: 3 })), /leaves a hole/)
  assert.deepEqual(await receive(event(5)), { applied: 0, parked: 0, repeated: 1 })
  assert.deepEqual(seen.slice(0, 3), ['us:1:2:1', 'us:1:2:2', 'us:1:2:3'])
  assert.deepEqual(seen.slice(-2), ['us:1:2:4', 'us:2:2:1'])
})

test('R8: an event whose effect fails moves nothing', async (t) => {
  const { region } = await testRegion(t)
  const appliers: Appliers = { known: () => Promise.reject(new Error('no')) }
  await assert.rejects(receiveEvents(region.db, { ...from, events: [event(1)], appliers }), /no/)
  assert.deepEqual(await placeAtPeer(region.db, from), { shard: 2, epoch: 1, seq: 0 })
})

test('R8: several at once apply each event once', async (t) => {
  const { region } = await testRegion(t)
  const { seen, appliers } = recorder()
  const events = Array.from({ length: 20 }, (_, index) => event(index + 1))
  const all = await Promise.all(
    Array.from({ length: 5 }, () => receiveEvents(region.db, { ...from, events, appliers })),
  )
  assert.equal(seen.length, 20)
  assert.equal(
    all.reduce((sum, { repeated }) => sum + repeated, 0),
    80,
  )
})

test('R4: an unknown type is parked and the rest goes on; a later release applies it, once and in order', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  const { seen, appliers } = recorder()
  const events = [event(1), event(2, { type: 'later.v2' }), event(3), event(4, { type: 'later.v2' })]
  assert.deepEqual(await receiveEvents(db, { ...from, events, appliers }), {
    applied: 2,
    parked: 2,
    repeated: 0,
  })
  assert.deepEqual(seen, ['us:1:2:1', 'us:1:2:3'])
  assert.equal(await applyParked(db, appliers), 0)
  const late: CloudEvent[] = []
  const later: Appliers = { ...appliers, 'later.v2': async (_transaction, parked) => void late.push(parked) }
  assert.equal(await applyParked(db, later), 2)
  assert.equal(await applyParked(db, later), 0)
  assert.deepEqual(late, [events[1], events[3]], 'as they came')
})

test("another origin's event in the batch is refused", async (t) => {
  const { region } = await testRegion(t)
  const events = [event(1, { origin: 'asia' })]
  await assert.rejects(
    receiveEvents(region.db, { ...from, events, appliers: {} }),
    /no event of shard 2 of us/,
  )
})
