// Settings of the event log.

import { integer } from './parsers.ts'
import { DAY_SECONDS, type Values, variable } from './variable.ts'

export const eventVariables = Object.freeze({
  PORTOLAN_EVENTS_RETENTION_SECONDS: variable(
    integer({ min: 60, max: 400 * DAY_SECONDS }),
    '604800',
    'How long events are kept in the log and in Kafka. A reader of older positions gets 410 with the oldest position.',
  ),
  PORTOLAN_EVENTS_PULL_SECONDS: variable(
    integer({ min: 0, max: 3600 }),
    '0',
    'Interval at which pulls are written as events. They are counted by manifest and tag, up to 1,000 images per ' +
      'process and interval. `0` turns them off.',
  ),
  PORTOLAN_EVENTS_READER_SECONDS: variable(
    integer({ min: 60, max: 400 * DAY_SECONDS }),
    '2592000',
    'How long a silent reader can keep events past the retention. Readers are Kafka, webhooks and other regions.',
  ),
  PORTOLAN_STREAMS_MAX: variable(
    integer({ min: 1, max: 100_000 }),
    '2000',
    'Maximum event streams and long polls per process. More are answered 429. Each may buffer 1 MiB for a slow reader.',
  ),
  PORTOLAN_STREAMS_PER_ADDRESS_MAX: variable(
    integer({ min: 1, max: 100_000 }),
    '500',
    'Maximum event streams and long polls per client address (IPv6: per /64). More are answered 429.',
  ),
})

export interface EventsConfig {
  readonly retentionSeconds: number
  readonly readerSeconds: number
  /** 0: pulls are not written as events. */
  readonly pullSeconds: number
  /** Per process. */
  readonly streamsMax: number
  readonly streamsPerAddressMax: number
}

export function eventsConfig(values: Values<typeof eventVariables>): EventsConfig {
  return {
    retentionSeconds: values.PORTOLAN_EVENTS_RETENTION_SECONDS,
    readerSeconds: values.PORTOLAN_EVENTS_READER_SECONDS,
    pullSeconds: values.PORTOLAN_EVENTS_PULL_SECONDS,
    streamsMax: values.PORTOLAN_STREAMS_MAX,
    streamsPerAddressMax: values.PORTOLAN_STREAMS_PER_ADDRESS_MAX,
  }
}
