import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isSigned, signRecord } from '#shared/bus/record-signature.ts'

const KEY = 'first-key-of-the-regions-0123456789'
const OTHER = 'other-key-of-the-regions-0123456789'
const record = {
  partition: 3,
  key: 'team/app',
  value: '{"repository":"team/app"}',
  headers: {
    ce_id: 'eu:1:3:7',
    ce_type: 'dev.portolan.registry.tag.set.v1',
    'content-type': 'application/json',
  },
  bytes: 100,
}

/** The record as a consumer receives it. */
function received({
  key,
  value,
  headers,
}: {
  key: string
  value: string
  headers: Readonly<Record<string, string>>
}) {
  const buffers = Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)])
  return { key: Buffer.from(key), value: Buffer.from(value), headers: Object.fromEntries(buffers) }
}

test('a record is signed by the first key and accepted under each', () => {
  const signed = signRecord(record, KEY)
  assert.ok(isSigned(received(signed), [KEY]))
  assert.ok(isSigned(received(signed), [OTHER, KEY]))
  assert.ok(!isSigned(received(signed), [OTHER]))
  assert.ok(!isSigned(received(signed), []))
})

test('whatever is changed, left out or added is noticed', () => {
  const signed = signRecord(record, KEY)
  const { headers } = signed
  const without = Object.fromEntries(Object.entries(headers).filter(([name]) => name !== 'ce_type'))
  const forged = [
    record,
    { ...signed, key: 'team/other' },
    { ...signed, value: '{"repository":"team/others"}' },
    { ...signed, headers: { ...headers, ce_id: 'eu:1:3:8' } },
    { ...signed, headers: { ...headers, ce_subject: 'x' } },
    { ...signed, headers: without },
    { ...signed, headers: { ...headers, 'portolan-signature': 'x' } },
    {
      ...signed,
      headers: {
        ...headers,
        'portolan-signature': headers['portolan-signature']?.replace(/:.*/, `:${'A'.repeat(43)}=`) ?? '',
      },
    },
  ]
  for (const one of forged) assert.ok(!isSigned(received(one), [KEY]), JSON.stringify(one))
  assert.ok(!isSigned({ key: null, value: null }, [KEY]))
})
