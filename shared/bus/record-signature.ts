// Signs Kafka records for other regions: HMAC-SHA-256 with the key that regions share, over the record's key, its value
// and every CloudEvents header. A topic's content is not trusted: otherwise, anyone who may write to it could delete
// tags in other regions. A region ignores a record without a valid signature; this leaves a gap, which the origin's log
// fills. Other consumers ignore the header.

import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import type { KafkaRecord } from '#shared/events/kafka-record.ts'

const HEADER = 'portolan-signature'
const SIGNED_PREFIX = 'ce_'
const SIGNATURE = /^([0-9a-f]{16}):([A-Za-z0-9+/]{43}=)$/

export function signRecord(record: KafkaRecord, key: string): KafkaRecord {
  const signature = `${keyId(key)}:${mac(record.key, record.headers, record.value, key).toString('base64')}`
  return { ...record, headers: { ...record.headers, [HEADER]: signature } }
}

/** Returns true if one of the keys signed the record. */
export function isSigned(
  record: {
    readonly key: Buffer | null
    readonly value: Buffer | null
    readonly headers?: Readonly<Record<string, unknown>> | undefined
  },
  keys: readonly string[],
): boolean {
  const headers = Object.fromEntries(
    Object.entries(record.headers ?? {}).map(([name, value]) => [
      name,
      Buffer.isBuffer(value) || typeof value === 'string' ? value.toString() : '',
    ]),
  )
  const [, id, signature = ''] = SIGNATURE.exec(headers[HEADER] ?? '') ?? []
  const key = keys.find((one) => keyId(one) === id)
  if (key === undefined) return false
  const expected = mac(record.key?.toString() ?? '', headers, record.value?.toString() ?? '', key)
  return timingSafeEqual(expected, Buffer.from(signature, 'base64'))
}

/** Identifies a key without revealing it. It differs from the key id of requests, so that each id has one purpose. */
function keyId(key: string): string {
  return createHash('sha256').update(`portolan record key\n${key}`).digest('hex').slice(0, 16)
}

function mac(
  recordKey: string,
  headers: Readonly<Record<string, string>>,
  value: string,
  key: string,
): Buffer {
  const signed = Object.entries(headers)
    .filter(([name]) => name.startsWith(SIGNED_PREFIX))
    .sort(([a], [b]) => (a < b ? -1 : 1))
  return createHmac('sha256', key)
    .update(JSON.stringify(['portolan record', recordKey, signed]))
    .update('\n')
    .update(value)
    .digest()
}
