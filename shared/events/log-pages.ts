// Where a log can be read by shards: the origin's own database, or the origin's /peer/v1/log. The interface is what
// readers need; a reader that comes too late is told so instead of being handed what is left.

import type { CloudEvent } from './cloud-event.ts'
import type { ShardPosition } from './event-id.ts'

export interface LogPage {
  /** Ordered by shard and place; may be fewer than there are. */
  readonly events: readonly CloudEvent[]
  /** Shards whose next events are no longer kept, with the place before the oldest that is left. */
  readonly gone: readonly ShardPosition[]
}

export interface LogPages {
  /**
   * Events after each position. At most one position for each shard. `mayWait`: an empty page may come late, when there
   * is something or after a while; the caller has nothing else to read.
   */
  page(after: readonly ShardPosition[], options?: { mayWait: boolean }): Promise<LogPage>
  /** How many events come after these positions. */
  lag(after: readonly ShardPosition[]): Promise<number>
}
