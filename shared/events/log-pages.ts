// Reads a log by shards, from the origin's own database or from the origin's /peer/v1/log. The interface covers what
// readers need. If events were trimmed before a reader took them, it learns so, instead of getting only what is left.

import type { CloudEvent } from './cloud-event.ts'
import type { ShardPosition } from './event-id.ts'

export interface LogPage {
  /** Ordered by shard and position. May be fewer than there are. */
  readonly events: readonly CloudEvent[]
  /** Shards whose next events were trimmed, each with the place before the oldest event that is left. */
  readonly gone: readonly ShardPosition[]
}

export interface LogPages {
  /**
   * Returns events after each position. At most one position per shard. `mayWait`: the call may wait for events for a
   * while before it returns an empty page, because the caller has nothing else to read. `signal` ends such a wait: the
   * call then rejects.
   */
  page(
    after: readonly ShardPosition[],
    options?: { mayWait: boolean; signal?: AbortSignal },
  ): Promise<LogPage>
  /** Returns how many events come after these positions. */
  lag(after: readonly ShardPosition[]): Promise<number>
}
