// An event of the log as CloudEvents 1.0 (https://github.com/cloudevents/spec, JSON format). Pure.
//
// `id` is the idempotency key everywhere: origin, epoch, shard, seq. `position` is where a reader continues.
// `partitionkey` and `sequence` are the documented extensions of those names.

import { formatEventId } from './event-id.ts'
import { schemaPath } from './event-types.ts'
import { formatPosition } from './position.ts'

/** What an event is built from. A row of the log has all of it. */
export interface EventSource {
  readonly epoch: number
  readonly pos: number
  readonly shard: number
  readonly seq: number
  readonly repository: string
  readonly type: string
  readonly subject: string
  readonly payload: Readonly<Record<string, unknown>>
  readonly traceparent: string | null
  readonly actor: string
  readonly request: Readonly<Record<string, unknown>>
  readonly instance: string
  readonly time: Date
  /** A manifest's bytes, for readers that store them: other regions. */
  readonly content?: Buffer | null
}

export interface CloudEvent {
  readonly specversion: '1.0'
  readonly id: string
  readonly source: string
  readonly type: string
  readonly subject: string
  readonly time: string
  readonly datacontenttype: 'application/json'
  /** A path relative to the registry. */
  readonly dataschema: string
  readonly partitionkey: string
  readonly sequence: string
  readonly position: string
  readonly traceparent?: string
  readonly data: Readonly<Record<string, unknown>>
}

export function toCloudEvent(origin: string, event: EventSource): CloudEvent {
  const { epoch, pos, shard, seq, actor, request, instance } = event
  return {
    specversion: '1.0',
    id: formatEventId({ origin, epoch, shard, seq }),
    source: `/regions/${origin}`,
    type: event.type,
    subject: event.subject,
    time: event.time.toISOString(),
    datacontenttype: 'application/json',
    dataschema: schemaPath(event.type),
    partitionkey: event.repository,
    sequence: String(seq),
    position: formatPosition({ origin, epoch, pos }),
    ...(event.traceparent !== null && { traceparent: event.traceparent }),
    data: {
      ...event.payload,
      ...(event.content && { content: event.content.toString('base64') }),
      actor: { name: actor },
      request,
      instance,
    },
  }
}

/**
 * Returns the event without its actor and request, for readers who are neither an admin nor that account. The rest of
 * the CloudEvent is unchanged. Both fields are optional in the schema for this reason.
 */
export function withoutProvenance(event: CloudEvent): CloudEvent {
  const { actor: _actor, request: _request, ...data } = event.data
  return { ...event, data }
}
