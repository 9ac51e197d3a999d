// Converts an event to a Kafka record: CloudEvents in binary mode
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md). Attributes become
// `ce_` headers, `data` becomes the JSON value. The key is the repository and the partition is the shard, so a
// repository's events stay in order. `traceparent` is repeated under its own name, where tracers look for it. Pure.

import type { CloudEvent } from './cloud-event.ts'
import { parseEventId } from './event-id.ts'
import { TYPE_PREFIX } from './event-types.ts'

/** Brokers refuse batches over 1 MB. This leaves room for headers. */
export const RECORD_BYTES_MAX = 900_000

export interface KafkaRecord {
  readonly partition: number
  readonly key: string
  readonly value: string
  readonly headers: Readonly<Record<string, string>>
  /** Size of value, key and headers together. */
  readonly bytes: number
}

const PREFIX = 'ce_'
/** Attributes that every event has. The others are optional. */
const REQUIRED = ['specversion', 'id', 'source', 'type', 'subject', 'time', 'position'] as const

const SETTING_PREFIX = `${TYPE_PREFIX}setting.`

/**
 * Returns the record of an event. If the event is too large for a batch, its manifest's references and content are left
 * out, and `abridged: true` is set; a reader that needs them fetches the manifest by its digest. The value of a
 * setting, sealed or not, is always left out, and the event is abridged too. A topic has many readers, but setting
 * values are only for other regions, which read them from the log.
 * @throws TypeError for an event without a valid id
 */
export function toKafkaRecord(event: CloudEvent): KafkaRecord {
  const { data, datacontenttype, ...attributes } = event
  const id = parseEventId(event.id)
  if (id === undefined) throw new TypeError(`not an event id: ${event.id}`)
  const headers: Record<string, string> = { 'content-type': datacontenttype }
  for (const [name, value] of Object.entries(attributes)) headers[PREFIX + name] = value
  if (event.traceparent !== undefined) headers.traceparent = event.traceparent
  const { value: _value, ...withoutValue } = data
  let value = JSON.stringify(
    event.type.startsWith(SETTING_PREFIX) ? { ...withoutValue, abridged: true } : data,
  )
  let bytes = size(value, headers)
  if (bytes > RECORD_BYTES_MAX) {
    const { content: _content, ...rest } = data
    value = JSON.stringify({ ...rest, references: [], abridged: true })
    bytes = size(value, headers)
  }
  return { partition: id.shard, key: event.partitionkey, value, headers, bytes }
}

function size(value: string, headers: Readonly<Record<string, string>>): number {
  // Each name and each value has a length prefix of up to 10 bytes.
  const heads = Object.entries(headers).reduce((sum, [name, text]) => sum + name.length + text.length + 20, 0)
  return Buffer.byteLength(value) + heads + 600
}

/** Yields whole records in order, as many at a time as one request may carry. */
export function* recordBatches(records: readonly KafkaRecord[]): Generator<KafkaRecord[]> {
  let batch: KafkaRecord[] = []
  let bytes = 0
  for (const record of records) {
    if (batch.length > 0 && bytes + record.bytes > RECORD_BYTES_MAX) {
      yield batch
      batch = []
      bytes = 0
    }
    batch.push(record)
    bytes += record.bytes
  }
  if (batch.length > 0) yield batch
}

type Headers = Readonly<Record<string, unknown>>

/** Returns the record's event, or undefined if Portolan did not write it: a topic's content is not trusted. */
export function fromKafkaRecord(record: {
  value: Buffer | null
  headers?: Headers | undefined
}): CloudEvent | undefined {
  const attributes: Record<string, string> = {}
  for (const [name, value] of Object.entries(record.headers ?? {})) {
    if (!name.startsWith(PREFIX)) continue
    if (typeof value === 'string' || Buffer.isBuffer(value))
      attributes[name.slice(PREFIX.length)] = value.toString()
  }
  if (REQUIRED.some((name) => attributes[name] === undefined)) return undefined
  if (attributes.specversion !== '1.0' || parseEventId(attributes.id ?? '') === undefined) return undefined
  const data = parsed(record.value)
  if (data === undefined) return undefined
  return { ...attributes, datacontenttype: 'application/json', data } as unknown as CloudEvent
}

function parsed(value: Buffer | null): Record<string, unknown> | undefined {
  if (value === null) return undefined
  try {
    const data: unknown = JSON.parse(value.toString())
    if (typeof data === 'object' && data !== null && !Array.isArray(data))
      return data as Record<string, unknown>
  } catch {
    // Not JSON, so not an event.
  }
  return undefined
}
