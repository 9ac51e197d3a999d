// Makes of batches that may repeat, skip or arrive late what a reader relies on: every event once and in order, shard by
// shard (rule R8). What a batch repeats is dropped; what it leaves out or abridges is read from the log. The promise holds as long as
// the reader keeps its positions in the transaction that applies the events.

import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { arrival, parseEventId, type ShardPosition } from '#shared/events/event-id.ts'
import type { LogPages } from '#shared/events/log-pages.ts'
import { type BusBatch, BusError } from './bus.ts'

const RESTARTS_MAX = 3

export interface InOrderOptions {
  readonly pages: LogPages
  /** Where this reader stands, from its own records. */
  position(shard: number): Promise<ShardPosition>
  /** Takes events that come right after the position. When it rejects, the same events come again. */
  handle(batch: BusBatch): Promise<void>
  /** The log no longer holds what comes next: returns where to continue, after making up for the loss. */
  onGone(oldest: ShardPosition): Promise<ShardPosition>
}

export interface InOrder {
  /** Takes a batch of any content. One batch of a shard at a time; rejects as the handler does. */
  take(batch: BusBatch): Promise<void>
  /** Where the reader stands in a shard. */
  position(shard: number): Promise<ShardPosition>
}

export function createInOrder(options: InOrderOptions): InOrder {
  const positions = new Map<number, ShardPosition>()
  const turns = new Map<number, Promise<void>>()

  async function position(shard: number): Promise<ShardPosition> {
    const known = positions.get(shard) ?? (await options.position(shard))
    positions.set(shard, known)
    return known
  }

  function take(batch: BusBatch): Promise<void> {
    const turn = (turns.get(batch.shard) ?? Promise.resolve()).then(() => sort(batch))
    // The next batch waits for this one, however it ends.
    turns.set(
      batch.shard,
      turn.catch(() => {}),
    )
    return turn
  }

  async function sort({ shard, events }: BusBatch): Promise<void> {
    let at = await position(shard)
    let next: CloudEvent[] = []
    const flush = async () => {
      if (next.length > 0) at = await hand(shard, next)
      next = []
    }
    for (const event of events) {
      const id = parseEventId(event.id)
      if (id === undefined || id.shard !== shard) continue
      const before = next.at(-1)
      const upTo = before === undefined ? at : (parseEventId(before.id) ?? at)
      const what = arrival(upTo, id)
      // An abridged event is a hole with a number: the log has it whole.
      if (what === 'next' && event.data.abridged !== true) next.push(event)
      else if (what !== 'repeated') {
        await flush()
        // The log has this event too, or it is not of this log.
        at = await fill(shard, id)
      }
    }
    await flush()
  }

  /** Reads the log until it is past `until` or at its end. */
  async function fill(shard: number, until: ShardPosition): Promise<ShardPosition> {
    let restarts = 0
    for (let at = await position(shard); ; ) {
      const { events, gone } = await options.pages.page([at], { mayWait: false })
      const [oldest] = gone
      if (oldest !== undefined) {
        if (++restarts > RESTARTS_MAX) throw new BusError(`shard ${shard} is trimmed faster than it is read`)
        at = await options.onGone(oldest)
        positions.set(shard, at)
        continue
      }
      if (events.length > 0) at = await hand(shard, events)
      if (events.length === 0 || arrival(at, until) === 'repeated') return at
    }
  }

  async function hand(shard: number, events: readonly CloudEvent[]): Promise<ShardPosition> {
    try {
      await options.handle({ shard, events })
    } catch (thrown) {
      // Only the reader's own records know whether it was applied.
      positions.delete(shard)
      throw thrown
    }
    const last = parseEventId(events.at(-1)?.id ?? '')
    const at = last === undefined ? await position(shard) : { shard, epoch: last.epoch, seq: last.seq }
    positions.set(shard, at)
    return at
  }

  return { take, position }
}
