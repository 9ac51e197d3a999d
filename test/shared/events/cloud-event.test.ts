import assert from 'node:assert/strict'
import { test } from 'node:test'
import { toCloudEvent } from '#shared/events/cloud-event.ts'

const row = {
  epoch: 2,
  pos: 30,
  shard: 5,
  seq: 7,
  repository: 'team/app',
  type: 'dev.portolan.registry.tag.set.v1',
  subject: 'team/app:v1',
  payload: { tag: 'v1', digest: 'sha256:0' },
  traceparent: null,
  actor: 'alice',
  request: { id: 'r' },
  instance: 'i',
  time: new Date('2026-11-24T08:00:00Z'),
}

test('a row of the log becomes a CloudEvent whose id any region can compute', () => {
  assert.deepEqual(toCloudEvent('eu', row), {
    specversion: '1.0',
    id: 'eu:2:5:7',
    source: '/regions/eu',
    type: 'dev.portolan.registry.tag.set.v1',
    subject: 'team/app:v1',
    time: '2026-11-24T08:00:00.000Z',
    datacontenttype: 'application/json',
    dataschema: '/api/v1/schemas/dev.portolan.registry.tag.set.v1.json',
    partitionkey: 'team/app',
    sequence: '7',
    position: 'eu:2:30',
    data: { tag: 'v1', digest: 'sha256:0', actor: { name: 'alice' }, request: { id: 'r' }, instance: 'i' },
  })
  const traced = toCloudEvent('eu', { ...row, traceparent: '00-a-b-01' })
  assert.equal(traced.traceparent, '00-a-b-01')
})
