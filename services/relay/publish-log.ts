// Publishes the log to Kafka in order, at least once: it reads after the cursor, sends, waits for the acknowledgement,
// and moves the cursor. Only one relay publishes at a time. Events that a dead relay sent but did not record are sent
// again under the same IDs. The cursor moves a few times a second rather than after every batch, because each move is a
// commit and pushes need the disk for their own commits.
//
// Kafka may be unavailable for any length of time. Pushes do not depend on it, and this process holds only the page
// that it is trying to send. The topic is created at the start and whenever Kafka reports that it is missing.

import type { KafkaBus } from '#shared/bus/kafka-bus.ts'
import { isUnreachable } from '#shared/db/failures.ts'
import { type Held, withLease } from '#shared/db/lease.ts'
import { moveOwnReader, ownReaderPosition } from '#shared/db/own-readers.ts'
import { readWholeEvents } from '#shared/db/shard-log.ts'
import { toCloudEvent } from '#shared/events/cloud-event.ts'
import { pause } from '#shared/pause.ts'
import type { Region } from '#shared/region.ts'
import { compareTopic } from './compare-topic.ts'

const KAFKA_READER = 'kafka'

const LEASE = 'kafka-publisher'
const LEASE_PAUSE_MS = 1_000
const PAGE_ROWS_MAX = 500
const PAGE_BYTES_MAX = 700_000
/** Polling interval. The sequencer wakes the publisher earlier, unless another relay moved the outbox. */
const IDLE_PAUSE_MS = 50
/** Under load, lets a batch grow large enough to be worth its round trips. */
const BUSY_PAUSE_MS = 8
const NOTE_EVERY_MS = 250
const STOP_MS_MAX = 3_000
const FAILURE_PAUSE_MS = 500
const FAILURE_PAUSE_MS_MAX = 5_000

export interface Publishing extends AsyncDisposable {
  /** Signals that the log has new events. */
  wake(): void
}

export function startPublishing(region: Region, kafka: KafkaBus): Publishing {
  const stopping = new AbortController()
  let sleeping = new AbortController()
  let woken = false
  let failing = false

  /** Waits until the log has new events, but at most IDLE_PAUSE_MS. */
  async function idle(signal: AbortSignal): Promise<void> {
    sleeping = new AbortController()
    if (!woken) await pause(IDLE_PAUSE_MS, { signal: AbortSignal.any([signal, sleeping.signal]) })
  }

  async function publish(signal: AbortSignal, held: Held): Promise<void> {
    const { retentionSeconds } = region.config.events
    await kafka.ensureTopic({ retentionSeconds, replicas: region.config.kafka?.replicas })
    await compareTopic(region, { reader: KAFKA_READER, lastEvents: () => kafka.lastEvents() })
    let after = (await ownReaderPosition(region.db, KAFKA_READER)) ?? { epoch: 1, pos: 0 }
    let noted = after
    let notedAtMs = performance.now()
    const note = async () => {
      if (noted !== after) await moveOwnReader(region.db, KAFKA_READER, after)
      noted = after
      notedAtMs = performance.now()
    }
    try {
      while (!signal.aborted) {
        woken = false
        const page = await readWholeEvents(region.db, {
          after,
          limit: PAGE_ROWS_MAX,
          bytesMax: PAGE_BYTES_MAX,
        })
        const last = page.at(-1)
        if (performance.now() - notedAtMs > NOTE_EVERY_MS) await note()
        if (last === undefined) {
          await idle(signal)
          continue
        }
        held.requireHeld()
        await kafka.publish(page.map((event) => toCloudEvent(region.name, event)))
        region.reach('kafka-sent')
        after = { epoch: last.epoch, pos: last.pos }
        region.metrics.published(page.length)
        if (failing) region.log.info({ ...after }, 'Kafka accepts events again')
        failing = false
        if (page.length < PAGE_ROWS_MAX) await pause(BUSY_PAUSE_MS, { signal })
      }
    } finally {
      // Events that are not recorded are sent again. That is correct but wasteful.
      await note()
    }
  }

  /** Runs while this relay holds the publishing lease. */
  async function hold(lost: AbortSignal, held: Held): Promise<void> {
    const signal = AbortSignal.any([stopping.signal, lost])
    for (
      let pauseMs = FAILURE_PAUSE_MS;
      !signal.aborted;
      pauseMs = Math.min(pauseMs * 2, FAILURE_PAUSE_MS_MAX)
    ) {
      try {
        await publish(signal, held)
      } catch (thrown) {
        if (signal.aborted) return
        // The lease is lost with the database. work() retries.
        if (isUnreachable(thrown)) throw thrown
        if (!failing) region.log.warn({ error: thrown }, 'Kafka does not accept events; they wait in the log')
        else region.log.debug({ error: thrown }, 'Kafka still does not accept events')
        if (!failing) pauseMs = FAILURE_PAUSE_MS
        failing = true
      }
      await pause(pauseMs, { signal })
    }
  }

  async function work(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        await withLease(region.databaseUrl, LEASE, hold)
      } catch (thrown) {
        region.logFailure(thrown, 'failed to publish the log; will retry')
      }
      await pause(LEASE_PAUSE_MS, { signal: stopping.signal })
    }
  }

  const working = work()
  return {
    wake() {
      woken = true
      sleeping.abort()
    },
    async [Symbol.asyncDispose]() {
      stopping.abort()
      // Do not wait for an unresponsive Kafka. The next publisher sends what Kafka has not acknowledged.
      await Promise.race([working, pause(STOP_MS_MAX)])
    },
  }
}
