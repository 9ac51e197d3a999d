// The bus: how readers receive the events of one origin's log. Its two implementations, kafka-bus.ts and log-bus.ts,
// make the same promises, and test/contract/bus.ts checks both.
//
// The bus only provides fast delivery. It delivers an event at least once, in the order of its shard, as long as there
// is only one publisher. Duplicates and gaps can occur (after a broker failure, or if a topic is recreated), and the
// event's id reveals them. A reader that needs every event exactly once stores its position and fills gaps from the
// log: see follow.ts.

import type { CloudEvent } from '#shared/events/cloud-event.ts'
import type { ShardPosition } from '#shared/events/event-id.ts'

/** Events of one shard, in order; at least one. */
export interface BusBatch {
  readonly shard: number
  readonly events: readonly CloudEvent[]
}

export interface SubscribeOptions {
  /** Readers of one group share the work, if the bus supports that. Each group gets all events. */
  readonly group: string
  /** Returns the group's own stored position, from which the log is read. Kafka stores its offsets itself. */
  position(shard: number): Promise<ShardPosition>
  /**
   * Handles a batch. Resolves when nothing of the batch needs to be delivered again. If it rejects, the batch is
   * delivered again, without limit, after a pause that grows up to two seconds. Other shards are not held up.
   */
  handle(batch: BusBatch): Promise<void>
  /** Called for each error. The subscription continues. */
  onProblem(error: unknown): void
}

/** Disposing it ends the subscription and waits for the batches that are being handled. */
export type Subscription = AsyncDisposable

/** Disposing it closes the connections. Dispose its subscriptions first. */
export interface Bus extends AsyncDisposable {
  /**
   * Resolves when the bus has stored the events, in this order within each shard. Settles within a minute or two.
   * @throws BusError if it is not known whether they are stored; publish them again then
   */
  publish(events: readonly CloudEvent[]): Promise<void>
  /** Returns at once. The subscription waits for whatever is missing (a broker, a topic). */
  subscribe(options: SubscribeOptions): Subscription
  /** Returns the number of events that the group has not taken yet. @throws BusError if it cannot be determined */
  lag(group: string): Promise<number>
}

export class BusError extends Error {
  override readonly name = 'BusError'
}
