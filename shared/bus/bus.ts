// The bus: how events of one origin's log reach whoever follows it. Two implementations, kafka-bus.ts and log-bus.ts, keep
// the same promises, which test/contract/bus.ts checks on both.
//
// It is fast delivery and nothing more. An event is handed over at least once, in the order of its shard as long as
// nobody else publishes; repetitions and holes happen (a broker that died, a topic that was made anew) and are told
// by the event's id. Who needs every event exactly once keeps its position and reads the log where the bus has a hole:
// see follow.ts.

import type { CloudEvent } from '#shared/events/cloud-event.ts'
import type { ShardPosition } from '#shared/events/event-id.ts'

/** Events of one shard, in order; at least one. */
export interface BusBatch {
  readonly shard: number
  readonly events: readonly CloudEvent[]
}

export interface SubscribeOptions {
  /** Readers of one group share the work where the bus can do that; each group gets everything. */
  readonly group: string
  /** Where the group stands by its own account; the log is read from there. Kafka keeps its own account. */
  position(shard: number): Promise<ShardPosition>
  /**
   * Takes a batch. Resolves when nothing of it needs to be handed over again. When it rejects, the batch is handed
   * over again after a pause that grows to two seconds, for ever; other shards go on.
   */
  handle(batch: BusBatch): Promise<void>
  /** Told of what goes wrong; the subscription goes on. */
  onProblem(error: unknown): void
}

/** Disposing ends it and waits for the batches under way. */
export type Subscription = AsyncDisposable

/** Disposing closes the connections; subscriptions are to be disposed before. */
export interface Bus extends AsyncDisposable {
  /**
   * Resolves when the bus holds the events, in this order within each shard. Ends by itself within a minute or two.
   * @throws BusError when it is not known whether it holds them: to be published again
   */
  publish(events: readonly CloudEvent[]): Promise<void>
  /** Returns at once; what is missing (a broker, a topic) is waited for. */
  subscribe(options: SubscribeOptions): Subscription
  /** Events that the group has not taken yet. @throws BusError when that cannot be known */
  lag(group: string): Promise<number>
}

export class BusError extends Error {
  override readonly name = 'BusError'
}
