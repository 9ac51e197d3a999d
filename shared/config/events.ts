// Settings of the event log.

import { integer } from './parsers.ts'
import { DAY_SECONDS, type Values, variable } from './variable.ts'

export const eventVariables = Object.freeze({
  PORTOLAN_EVENTS_RETENTION_SECONDS: variable(
    integer({ min: 60, max: 400 * DAY_SECONDS }),
    '604800',
    'How long events are kept, in the log and in Kafka. A reader of older positions gets 410 with the oldest one.',
  ),
  PORTOLAN_EVENTS_PULL_SECONDS: variable(
    integer({ min: 0, max: 3600 }),
    '0',
    'Interval at which pulls are written as events, counted by manifest and tag, up to 1,000 images each. `0` turns ' +
      'them off.',
  ),
  PORTOLAN_EVENTS_READER_SECONDS: variable(
    integer({ min: 60, max: 400 * DAY_SECONDS }),
    '2592000',
    'How long events beyond the retention wait for a silent reader: Kafka, webhooks, another region.',
  ),
  PORTOLAN_STREAMS_MAX: variable(
    integer({ min: 1, max: 100_000 }),
    '2000',
    'Event streams and long polls of each process. More are answered 429. Each may hold 1 MiB for a slow reader.',
  ),
  PORTOLAN_STREAMS_PER_ADDRESS_MAX: variable(
    integer({ min: 1, max: 100_000 }),
    '500',
    'Event streams and long polls of one client address (IPv6: one /64). More are answered 429.',
  ),
})

export interface EventsConfig {
  readonly retentionSeconds: number
  readonly readerSeconds: number
  /** 0: pulls are not events. */
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
