// The log to Kafka, in its order, at least once: reads after the cursor, sends, waits for the answer, moves the cursor. One
// relay at a time does it; what one that died had sent and not noted is sent again, under the same ids. The cursor is
// moved a few times a second and not with every batch: each move is a commit, and pushes want the disk for theirs.
//
// Kafka may be away for as long as it likes: pushes do not know of it, and nothing is kept here but the one page that
// is being tried. The topic is made at the start and whenever Kafka says that it is not there.

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
/** The sequencer wakes this; without it (another relay moved the outbox) the log is looked at as often as that. */
const IDLE_PAUSE_MS = 50
/** Under load: so that a batch is worth its round trips. */
const BUSY_PAUSE_MS = 8
const NOTE_EVERY_MS = 250
const STOP_MS_MAX = 3_000
const FAILURE_PAUSE_MS = 500
const FAILURE_PAUSE_MS_MAX = 5_000

export interface Publishing extends AsyncDisposable {
  /** There is something new in the log. */
  wake(): void
}

export function startPublishing(region: Region, kafka: KafkaBus): Publishing {
  const stopping = new AbortController()
  let sleeping = new AbortController()
  let woken = false
  let failing = false

  /** Until there is something, or the time is over. */
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
        if (failing) region.log.info({ ...after }, 'Kafka takes events again')
        failing = false
        if (page.length < PAGE_ROWS_MAX) await pause(BUSY_PAUSE_MS, { signal })
      }
    } finally {
      // What is not noted is sent again: never wrong, but of no use.
      await note()
    }
  }

  /** For as long as this relay is the one that publishes. */
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
        // The lease goes with the database, and work() tries again.
        if (isUnreachable(thrown)) throw thrown
        if (!failing) region.log.warn({ error: thrown }, 'Kafka does not take events; they wait in the log')
        else region.log.debug({ error: thrown }, 'Kafka still does not take events')
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
        region.logFailure(thrown, 'publishing the log failed; it will be tried again')
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
      // A Kafka that does not answer is not waited for: what it has not taken is sent by the next.
      await Promise.race([working, pause(STOP_MS_MAX)])
    },
  }
}
