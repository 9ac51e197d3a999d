// The relay: numbers the events of the outbox and moves them to the region's event log, in order and within
// milliseconds.
//
// It polls the outbox often while pushes arrive and rarely when none do. The poll takes no lock and no transaction ID,
// so it changes nothing that pulls depend on. Several relays may run: the one that holds the lock moves rows, and the
// others find nothing to do. If Kafka is configured, the relay publishes the log to it (see publish-log.ts). It also
// trims events older than the retention, a bounded number of rows at a time.

import { moveOutbox, outboxPending, trimEvents } from '#shared/db/event-log.ts'
import { logWasCompared } from '#shared/db/region.ts'
import { startLoop } from '#shared/loop.ts'
import { pause } from '#shared/pause.ts'
import type { Region } from '#shared/region.ts'
import type { Service } from '#shared/service.ts'
import { type Publishing, startPublishing } from './publish-log.ts'

const BATCH = 500
const BUSY_PAUSE_MS = 8
const IDLE_PAUSE_MS = 40
/** The relay is idle when no row has moved for this long. */
const IDLE_AFTER_MS = 2_000
const FAILURE_PAUSE_MS = 1_000
const COMPARISON_WAIT_MS = 10_000
const TRIM_EVERY_MS = 60_000
const TRIM_BATCH = 5_000
const TRIM_BATCHES_MAX = 20

export async function startRelay(region: Region): Promise<Service> {
  const stopping = new AbortController()
  await using opened = new AsyncDisposableStack()
  let publishing: Publishing | undefined
  const { name, log } = region
  const { kafka, peerKeys } = region.config
  if (kafka !== undefined) {
    const { openKafka } = await import('#shared/bus/open-kafka.ts')
    publishing = opened.use(
      startPublishing(region, opened.use(openKafka(kafka, { name, log, keys: peerKeys }))),
    )
  }
  const sequencing = sequence(region, { signal: stopping.signal, onMoved: () => publishing?.wake() })
  const trimming = startLoop({
    everyMs: TRIM_EVERY_MS,
    run: (signal) => trim(region, signal),
    onError: (error) => region.logFailure(error, 'failed to trim the event log; will retry'),
  })
  const stack = opened.move()
  return {
    name: 'relay',
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await sequencing
      await trimming[Symbol.asyncDispose]()
      await stack.disposeAsync()
    },
  }
}

async function sequence(
  region: Region,
  { signal, onMoved }: { signal: AbortSignal; onMoved(): void },
): Promise<void> {
  const comparison = region.config.kafka === undefined ? undefined : createComparisonWait(region)
  let lastMovedMs = performance.now()
  while (!signal.aborted) {
    let pauseMs = performance.now() - lastMovedMs > IDLE_AFTER_MS ? IDLE_PAUSE_MS : BUSY_PAUSE_MS
    try {
      const mayMove = (await outboxPending(region.db)) && ((await comparison?.isOver()) ?? true)
      const moved = mayMove ? await moveOnce(region) : 0
      if (moved > 0) {
        lastMovedMs = performance.now()
        onMoved()
      }
      if (moved === BATCH) continue
    } catch (thrown) {
      pauseMs = FAILURE_PAUSE_MS
      region.logFailure(thrown, 'failed to number the outbox; will retry')
    }
    await pause(pauseMs, { signal })
  }
}

/**
 * If the database was restored, numbers assigned before the comparison with Kafka may repeat old ones. Those events are
 * then numbered again under a higher epoch. To avoid this, the first events after each start of the database wait for
 * the comparison, but at most 10 s, because Kafka may be unavailable.
 */
function createComparisonWait(region: Region): { isOver(): Promise<boolean> } {
  let sinceMs: number | undefined
  return {
    async isOver() {
      if (await logWasCompared(region.db)) {
        sinceMs = undefined
        return true
      }
      sinceMs ??= performance.now()
      return performance.now() - sinceMs > COMPARISON_WAIT_MS
    },
  }
}

/** Moves one batch. Returns the number of rows, which is 0 also while another relay is moving rows. */
export async function moveOnce(region: Region): Promise<number> {
  const moved = await region.db.transaction(async (transaction) => {
    const count = await moveOutbox(transaction, {
      limit: BATCH,
      onRaised: (epoch) => region.log.warn({ epoch }, 'the database was taken over; raised the epoch'),
    })
    region.reach('outbox-moved')
    return count
  })
  return moved ?? 0
}

async function trim(region: Region, signal: AbortSignal): Promise<void> {
  const { retentionSeconds, readerSeconds } = region.config.events
  for (let batch = 0; batch < TRIM_BATCHES_MAX && !signal.aborted; batch++) {
    const trimmed = await trimEvents(region.db, { retentionSeconds, readerSeconds, limit: TRIM_BATCH })
    if (trimmed < TRIM_BATCH) return
  }
}
