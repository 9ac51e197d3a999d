import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatPosition, parsePosition } from '#shared/events/position.ts'

test('positions are formatted and parsed, and nothing else is accepted', () => {
  assert.deepEqual(parsePosition('eu:1:0'), { origin: 'eu', epoch: 1, pos: 0 })
  assert.deepEqual(parsePosition('us-east:12:345'), { origin: 'us-east', epoch: 12, pos: 345 })
  assert.deepEqual(parsePosition('eu:1:o7'), { origin: 'eu', epoch: 1, outboxId: 7 })
  assert.equal(formatPosition({ origin: 'eu', epoch: 2, pos: 3 }), 'eu:2:3')
  for (const text of [
    '',
    'eu',
    'eu:1',
    'eu:0:1',
    'eu:01:1',
    'eu:1:-1',
    'eu:1:01',
    'eu:1:o0',
    'EU:1:1',
    'eu:1:1 ',
    `eu:1:${'9'.repeat(17)}`,
    'x'.repeat(100),
  ]) {
    assert.equal(parsePosition(text), undefined, text)
  }
})
