import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { fromKafkaRecord, RECORD_BYTES_MAX, toKafkaRecord } from '#shared/events/kafka-record.ts'

const event: CloudEvent = {
  specversion: '1.0',
  id: 'eu:2:3:17',
  source: '/regions/eu',
  type: 'dev.portolan.registry.tag.set.v1',
  subject: 'team/app:1.4',
  time: '2026-11-24T10:00:00.000Z',
  datacontenttype: 'application/json',
  dataschema: '/api/v1/schemas/dev.portolan.registry.tag.set.v1.json',
  partitionkey: 'team/app',
  sequence: '17',
  position: 'eu:2:99',
  traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
  data: { repository: 'team/app', tag: '1.4', references: [{ digest: 'sha256:ü' }] },
}

test('CloudEvents in binary mode: attributes as ce_ headers, data as the value, shard as partition', () => {
  const { partition, key, value, headers } = toKafkaRecord(event)
  assert.equal(partition, 3)
  assert.equal(key, 'team/app')
  assert.deepEqual(JSON.parse(value), event.data)
  assert.equal(headers['content-type'], 'application/json')
  assert.equal(headers.ce_id, 'eu:2:3:17')
  assert.equal(headers.ce_specversion, '1.0')
  assert.equal(headers.traceparent, event.traceparent)
  assert.ok(Object.keys(headers).every((name) => /^(ce_[a-z]+|content-type|traceparent)$/.test(name)))
})

test('a record is parsed to the same event', () => {
  const { value, headers } = toKafkaRecord(event)
  const asBuffers = Object.fromEntries(
    Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)]),
  )
  assert.deepEqual(fromKafkaRecord({ value: Buffer.from(value), headers: asBuffers }), event)
})

test('a record too large for a batch goes without references and content, and is marked abridged', () => {
  const references = Array.from({ length: 20_000 }, (_, n) => ({
    kind: 'layer',
    digest: `sha256:${n}`.padEnd(71, '0'),
  }))
  const large = { ...event, data: { ...event.data, references, content: 'x'.repeat(350_000) } }
  const record = toKafkaRecord(large)
  assert.ok(record.bytes < RECORD_BYTES_MAX)
  assert.deepEqual(JSON.parse(record.value), {
    repository: 'team/app',
    tag: '1.4',
    references: [],
    abridged: true,
  })
})

test('a setting goes without its value, sealed or not, and is marked abridged', () => {
  const data = {
    kind: 'webhook',
    id: '1',
    field: 'enabled',
    value: true,
    deleted: false,
    actor: { name: 'root' },
  }
  const { value } = toKafkaRecord({ ...event, type: 'dev.portolan.registry.setting.set.v1', data })
  const { value: _value, ...rest } = data
  assert.deepEqual(JSON.parse(value), { ...rest, abridged: true })
  const pushed = { ...event, data: { value: 'kept' } }
  assert.deepEqual(JSON.parse(toKafkaRecord(pushed).value), { value: 'kept' })
})

test('the computed size of a record is never less than its real size', () => {
  const record = toKafkaRecord(event)
  const heads = Object.entries(record.headers).flat().join('')
  assert.ok(record.bytes > Buffer.byteLength(record.value + record.key + heads))
})

test('a record that is not one of our events is refused', () => {
  const { value, headers } = toKafkaRecord(event)
  const body = Buffer.from(value)
  assert.equal(fromKafkaRecord({ value: body }), undefined)
  assert.equal(fromKafkaRecord({ value: null, headers: { ...headers } }), undefined)
  assert.equal(fromKafkaRecord({ value: Buffer.from('{'), headers: { ...headers } }), undefined)
  assert.equal(fromKafkaRecord({ value: Buffer.from('[]'), headers: { ...headers } }), undefined)
  for (const name of ['ce_id', 'ce_type', 'ce_time', 'ce_position', 'ce_specversion']) {
    const { [name]: _left, ...rest } = headers
    assert.equal(fromKafkaRecord({ value: body, headers: rest }), undefined, name)
  }
  assert.equal(fromKafkaRecord({ value: body, headers: { ...headers, ce_id: 'eu:2:9:1' } }), undefined)
  assert.equal(fromKafkaRecord({ value: body, headers: { ...headers, ce_specversion: '0.3' } }), undefined)
})
