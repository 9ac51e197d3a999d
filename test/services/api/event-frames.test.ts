import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createEventFrames } from '../../../services/api/event-frames.ts'

test('however many streams send an event, it is rendered once for each of the two audiences', () => {
  const frames = createEventFrames('eu')
  let renderings = 0
  const time = new Date('2026-11-24T08:00:00Z')
  const event = {
    epoch: 1,
    pos: 3,
    shard: 0,
    seq: 3,
    repository: 'team/app',
    type: 'dev.portolan.registry.push.v1',
    subject: 'team/app:v1',
    payload: {
      get tag() {
        renderings++
        return 'v1'
      },
    },
    traceparent: null,
    actor: 'alice',
    request: { addr: '192.0.2.1' },
    instance: 'i',
    time,
  }
  const full = Array.from({ length: 500 }, () => frames.frame(event, 'full'))
  const plain = Array.from({ length: 500 }, () => frames.frame(event, 'plain'))
  assert.equal(renderings, 2)
  assert.equal(new Set(full).size, 1)
  assert.match(String(full[0]), /^id: eu:1:3\nevent: dev\.portolan\.registry\.push\.v1\ndata: \{.*\}\n\n$/)
  assert.ok(full[0]?.includes('"name":"alice"') && full[0].includes('192.0.2.1'))
  assert.ok(!plain[0]?.includes('alice') && !plain[0]?.includes('192.0.2.1'))
})
