// The id of an event: `<origin>:<epoch>:<shard>:<seq>`, the idempotency key everywhere. The events of a shard arrive in
// the order of (epoch, seq), without gaps in seq. A reader that stores the last one it took detects duplicates and
// gaps.

/** A place in one shard of a log: directly after this event. */
export interface ShardPosition {
  readonly shard: number
  readonly epoch: number
  /** 0 means before the first event of the epoch. */
  readonly seq: number
}

export interface EventId extends ShardPosition {
  readonly origin: string
}

export const SHARDS = 8

const ID = /^([a-z][a-z0-9-]{0,31}):([1-9][0-9]{0,8}):([0-7]):([1-9][0-9]{0,15})$/

export function formatEventId({ origin, epoch, shard, seq }: EventId): string {
  return `${origin}:${epoch}:${shard}:${seq}`
}

/** Returns undefined for anything else. Text over 70 characters is not parsed. */
export function parseEventId(text: string): EventId | undefined {
  if (text.length > 70) return undefined
  const match = ID.exec(text)
  const seq = Number(match?.[4])
  if (match === null || !Number.isSafeInteger(seq)) return undefined
  const [, origin = '', epoch, shard] = match
  return { origin, epoch: Number(epoch), shard: Number(shard), seq }
}

export type Arrival = 'next' | 'repeated' | 'gap'

/** Classifies an event for a reader at `at`. A new epoch starts at 1, but only once the old one is known to its end. */
export function arrival(at: ShardPosition, event: ShardPosition): Arrival {
  if (event.epoch < at.epoch || (event.epoch === at.epoch && event.seq <= at.seq)) return 'repeated'
  return event.epoch === at.epoch && event.seq === at.seq + 1 ? 'next' : 'gap'
}
