// The steps of the relay's publisher, one call at a time, for tests that control the timing.

import type { Bus } from '#shared/bus/bus.ts'
import { readWholeEvents } from '#shared/db/shard-log.ts'
import { toCloudEvent } from '#shared/events/cloud-event.ts'
import type { Region } from '#shared/region.ts'

/** Each call publishes the events that the log gained since the last call. */
export function publishLog(region: Region, bus: Bus): () => Promise<void> {
  let after = { epoch: 1, pos: 0 }
  return async () => {
    for (;;) {
      const page = await readWholeEvents(region.db, { after, limit: 500, bytesMax: 700_000 })
      const last = page.at(-1)
      if (last === undefined) return
      await bus.publish(page.map((event) => toCloudEvent(region.name, event)))
      after = { epoch: last.epoch, pos: last.pos }
    }
  }
}
