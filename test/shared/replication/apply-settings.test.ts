// Settings of other regions: merged field by field, with the same result in every order, as the pure core merges them.
// tests: shared/db/merge-settings.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { emptySetting, mergeField } from '#shared/convergence/settings.ts'
import { one, statement } from '#shared/db/statement.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { createSettingApplier } from '#shared/replication/apply-settings.ts'
import { receiveEvents } from '#shared/replication/receive-events.ts'
import { openTestDatabase } from '../../support/database.ts'

const NOW_MS = Date.parse('2026-01-01')
const H = (BigInt(NOW_MS) << 16n).toString()
const applier = createSettingApplier(() => NOW_MS)

function event(seq: number, data: Record<string, unknown>, origin = 'us'): CloudEvent {
  const whole = {
    kind: 'webhook',
    id: 'w1',
    field: 'url',
    value: 'https://a.example',
    deleted: false,
    version: { h: H, origin },
    prev: { h: '0', origin: '' },
    ...data,
  }
  const type = 'dev.portolan.registry.setting.set.v1'
  return { id: `${origin}:1:0:${seq}`, type, data: whole } as unknown as CloudEvent
}

const read = statement<{ value: string | null; h: string; origin: string; deleted: boolean }>(
  'test-setting',
  `select value::text, h::text, origin, deleted from setting where id = :id and field = :field`,
)
const parkedReasons = statement<{ reasons: string[] }>(
  'test-parked',
  `select coalesce(array_agg(reason order by seq), '{}') as reasons from parked_event where origin = :origin`,
)

test('a field is whatever is greatest, in any order and in any batches, as in the pure core', async (t) => {
  const { db } = await openTestDatabase(t)
  const write = fc.record({
    h: fc.integer({ min: 1, max: 4 }),
    origin: fc.constantFrom('us', 'ap'),
    value: fc.constantFrom('"a"', '"b"'),
  })
  let run = 0
  const seqs = { us: 0, ap: 0 }
  await fc.assert(
    fc.asyncProperty(fc.array(write, { minLength: 1, maxLength: 6 }), async (writes) => {
      const id = `w-${++run}`
      const setting = emptySetting()
      for (const { h, origin, value } of writes) {
        const version = { h: BigInt(h), origin }
        mergeField(setting, 'url', { version, value })
        const seq = ++seqs[origin]
        const data = { id, value: JSON.parse(value), version: { h: String(h), origin } }
        await receiveEvents(db, { origin, shard: 0, events: [event(seq, data, origin)], applier })
      }
      const row = await one(db, read, { id, field: 'url' })
      const expected = setting.fields.get('url')
      assert.deepEqual(
        [row.value, row.h, row.origin],
        [expected?.value, String(expected?.version.h), expected?.version.origin],
      )
    }),
    { numRuns: 60 },
  )
})

test('a revocation wins a tie, and several events of one field in a batch are the greatest of them', async (t) => {
  const { db } = await openTestDatabase(t)
  const events = [
    event(1, { field: '', value: true }),
    event(2, { version: { h: '5', origin: 'us' }, value: 'late' }),
    event(3, { version: { h: '3', origin: 'us' }, value: 'early' }),
    event(4, { field: '', value: true, deleted: true }),
  ]
  assert.deepEqual(await receiveEvents(db, { origin: 'us', shard: 0, events, applier }), {
    applied: 4,
    parked: 0,
    repeated: 0,
  })
  assert.equal((await one(db, read, { id: 'w1', field: 'url' })).value, '"late"')
  assert.equal((await one(db, read, { id: 'w1', field: '' })).deleted, true)
})

test('what is no setting of this release is parked with the reason, and the rest counts', async (t) => {
  const { db } = await openTestDatabase(t)
  const wrong: Record<string, unknown>[] = [
    { kind: 'policy' },
    { id: 7 },
    { field: 'x'.repeat(200) },
    { value: 'x'.repeat(300_000) },
    { version: { h: H, origin: 'eu' } },
    { version: { h: '9'.repeat(18), origin: 'us' } },
    { version: null },
  ]
  const events = [...wrong, { id: 'good' }].map((data, index) => event(index + 1, data))
  const taken = await receiveEvents(db, { origin: 'us', shard: 0, events, applier })
  assert.deepEqual(taken, { applied: 1, parked: wrong.length, repeated: 0 })
  const { reasons } = await one(db, parkedReasons, { origin: 'us' })
  assert.equal(reasons.length, wrong.length)
  assert.match(reasons[0] ?? '', /kind policy are unknown/)
  assert.equal((await one(db, read, { id: 'good', field: 'url' })).origin, 'us')
})
