// What the handlers of one API service share beside the region: made at start, handed to every handler, gone at its end.

import type { EventTail } from './event-tail.ts'
import type { PeerNotes } from './peer/log.ts'
import type { Streams } from './streams.ts'

export interface Edge {
  /** Set when the process drains: readiness says so, and new streams are refused. */
  draining: boolean
  readonly tail: EventTail
  /** Places for answers that stay open. */
  readonly streams: Streams
  readonly peerNotes: PeerNotes
}
