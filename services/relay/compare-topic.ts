// Compares the log with the end of the region's topic (rule R11). A database restored from a backup does not know the
// event numbers it assigned after that backup, and would assign them again to other events. If the topic is ahead, the
// epoch is raised and the events after the published position are renumbered under the new epoch. Orphans are kept for
// seven days, because their bytes may belong to pushes that the backup does not contain.

import { eventAt, holdSequencer, relogEvents } from '#shared/db/event-log.ts'
import { ownReaderPosition } from '#shared/db/own-readers.ts'
import { logWasCompared, raiseEpochTo, regionRow, setLogCompared } from '#shared/db/region.ts'
import type { Queryable } from '#shared/db/statement.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { parseEventId } from '#shared/events/event-id.ts'
import type { Region } from '#shared/region.ts'

/**
 * Runs once after each start of the database. `lastEvents` returns the last event of each partition of the topic.
 * `reader` names the cursor that holds the published position.
 */
export async function compareTopic(
  region: Region,
  options: { reader: string; lastEvents(): Promise<CloudEvent[]> },
): Promise<void> {
  if (await logWasCompared(region.db)) return
  const last = await options.lastEvents()
  await region.db.transaction(async (transaction) => {
    await holdSequencer(transaction)
    const { epoch } = await regionRow(transaction)
    const ahead: string[] = []
    let next = epoch + 1
    for (const event of last) {
      if (!(await isAhead(region.name, { event, epoch, transaction }))) continue
      ahead.push(event.id)
      next = Math.max(next, (parseEventId(event.id)?.epoch ?? 0) + 1)
    }
    if (ahead.length > 0) {
      await raiseEpochTo(transaction, next)
      const published = (await ownReaderPosition(transaction, options.reader)) ?? { epoch: 1, pos: 0 }
      const again = await relogEvents(transaction, published)
      region.log.warn(
        { epoch: next, ahead, again },
        'the database was restored: Kafka has events that it lacks; raised the epoch, orphans are kept for seven days',
      )
    }
    await setLogCompared(transaction)
  })
}

async function isAhead(
  origin: string,
  { event, epoch, transaction }: { event: CloudEvent; epoch: number; transaction: Queryable },
): Promise<boolean> {
  const id = parseEventId(event.id)
  // An event of another region says nothing about this log. An event of an earlier epoch was already handled.
  if (id === undefined || id.origin !== origin || id.epoch < epoch) return false
  if (id.epoch > epoch) return true
  const ours = await eventAt(transaction, id)
  if (ours === 'never') return true
  if (ours === 'trimmed') return false
  return ours.type !== event.type || ours.subject !== event.subject || ours.time.toISOString() !== event.time
}
