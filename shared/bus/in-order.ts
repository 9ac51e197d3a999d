// Turns batches that may repeat, skip or arrive late into what a reader relies on: every event once and in order, shard
// by shard (rule R8). Repeated events are dropped. Missing and abridged events are read from the log. The promise holds
// only if the reader stores its positions in the same transaction that applies the events.

import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { arrival, parseEventId, type ShardPosition } from '#shared/events/event-id.ts'
import type { LogPages } from '#shared/events/log-pages.ts'
import { type BusBatch, BusError } from './bus.ts'

const RESTARTS_MAX = 3

export interface InOrderOptions {
  readonly pages: LogPages
  /** Returns this reader's own stored position. */
  position(shard: number): Promise<ShardPosition>
  /** Takes events that directly follow the position. If it rejects, the same events are delivered again. */
  handle(batch: BusBatch): Promise<void>
  /** The log no longer has the next events. Makes up for the loss and returns where to continue. */
  onGone(oldest: ShardPosition): Promise<ShardPosition>
}

export interface InOrder {
  /** Takes any batch, one at a time per shard. Rejects if the handler rejects. */
  take(batch: BusBatch): Promise<void>
  /** Returns the reader's position in a shard. */
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
    // The next batch waits for this one, whether or not it succeeds.
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
      // An abridged event is a gap with a known number: the log has the complete event.
      if (what === 'next' && event.data.abridged !== true) next.push(event)
      else if (what !== 'repeated') {
        await flush()
        // The log also has this event, unless it does not belong to this log.
        at = await fill(shard, id)
      }
    }
    await flush()
  }

  /** Reads the log until it is past `until` or reaches the end. */
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
      // Only the reader's own records tell whether the events were applied.
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
