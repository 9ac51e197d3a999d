// Compares the log with the end of the region's own topic (rule R11): a database that was restored from a backup does not
// know what it gave out since, and would give the same numbers to other events. Then the epoch is raised, what the log
// holds beyond the published part is numbered again under the new one, and orphans stay where they are for a while:
// their bytes may belong to pushes that the backup does not know.

import { eventAt, holdSequencer, relogEvents } from '#shared/db/event-log.ts'
import { ownReaderPosition } from '#shared/db/own-readers.ts'
import { logWasCompared, raiseEpochTo, regionRow, setLogCompared } from '#shared/db/region.ts'
import type { Queryable } from '#shared/db/statement.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { parseEventId } from '#shared/events/event-id.ts'
import type { Region } from '#shared/region.ts'

/**
 * Once after each start of the database. `lastEvents`: of each partition, as the topic holds them. `reader`: whose cursor
 * says what was published.
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
        'Kafka holds events that this database does not know: it was restored. The epoch is raised, orphans stay for seven days',
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
  // Another region's event in this topic says nothing about this log; one of an epoch before was seen to already.
  if (id === undefined || id.origin !== origin || id.epoch < epoch) return false
  if (id.epoch > epoch) return true
  const ours = await eventAt(transaction, id)
  if (ours === 'never') return true
  if (ours === 'trimmed') return false
  return ours.type !== event.type || ours.subject !== event.subject || ours.time.toISOString() !== event.time
}
