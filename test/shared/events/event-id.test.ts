import assert from 'node:assert/strict'
import { test } from 'node:test'
import { arrival, formatEventId, parseEventId } from '#shared/events/event-id.ts'

test('an id is parsed as it was formatted, and anything else is refused', () => {
  const id = { origin: 'eu-west-1', epoch: 3, shard: 7, seq: 9_007_199_254_740_991 }
  assert.deepEqual(parseEventId(formatEventId(id)), id)
  for (const text of [
    '',
    'eu',
    'eu:1:8:1',
    'eu:0:1:1',
    'eu:1:1:0',
    'eu:1:1:01',
    'EU:1:1:1',
    'eu:1:1:9007199254740993',
    `${'e'.repeat(80)}:1:1:1`,
  ])
    assert.equal(parseEventId(text), undefined, text)
})

test('R8: the next number is next, an earlier number or epoch a duplicate, everything else a gap', () => {
  const at = { shard: 0, epoch: 2, seq: 5 }
  const cases: [epoch: number, seq: number, what: string][] = [
    [2, 6, 'next'],
    [2, 5, 'repeated'],
    [2, 1, 'repeated'],
    [1, 6, 'repeated'],
    [1, 900, 'repeated'],
    [2, 7, 'gap'],
    // Only the log knows whether the old epoch has more events.
    [3, 1, 'gap'],
    [3, 6, 'gap'],
  ]
  for (const [epoch, seq, what] of cases)
    assert.equal(arrival(at, { shard: 0, epoch, seq }), what, `${epoch}:${seq}`)
})
