// Named places between two durable steps, where a test may stop the process. In production they are never set and
// cost a function call that does nothing; they exist so that "nothing acknowledged is lost" is shown step by step
// (test/faults/api/crash.test.ts kills a node at each of them under load).

export const FAILPOINTS = [
  'attempt-durable',
  'attempt-joined',
  'object-complete',
  'blob-committed',
  'surplus-removed',
  'manifest-committed',
  'upload-cancelled',
  'expired-taken',
  'blob-copied',
  'outbox-moved',
  'kafka-sent',
] as const

export type Failpoint = (typeof FAILPOINTS)[number]

/** Called when a durable step is done and the next has not begun. */
export type ReachFailpoint = (failpoint: Failpoint) => void

export const noFailpoints: ReachFailpoint = () => {}
