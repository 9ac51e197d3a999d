// The relay: numbers the outbox into the region's event log, within milliseconds and in order.
//
// It asks the outbox whether there is anything (no lock, no transaction id, so nothing that pulls depend on changes),
// often while pushes arrive and seldom when none do. Several relays may run: whoever holds the lock moves, the others
// find nothing to do. It publishes the log to Kafka where there is one (publish-log.ts). It also trims what is older than
// the retention, a bounded number of rows at a time.

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
/** Quiet for so long is idle. */
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
    onError: (error) => region.logFailure(error, 'trimming the event log failed; it will be tried again'),
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
      region.logFailure(thrown, 'numbering the outbox failed; it will be tried again')
    }
    await pause(pauseMs, { signal })
  }
}

/**
 * Numbers given before Kafka was asked are given twice if the database was restored, and then once more under a higher
 * epoch. So after each start of the database the first ones wait for the answer, but not for a Kafka that is away.
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

/** One batch; how many rows. 0 also when another relay is at it. */
export async function moveOnce(region: Region): Promise<number> {
  const moved = await region.db.transaction(async (transaction) => {
    const count = await moveOutbox(transaction, {
      limit: BATCH,
      onRaised: (epoch) => region.log.warn({ epoch }, 'the database was taken over: the epoch is raised'),
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
