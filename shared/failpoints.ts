// Named places between two durable steps, at which a test can stop the process. They are never set in production, where
// each costs one call of an empty function. They let a test show step by step that nothing acknowledged is lost:
// test/faults/api/crash.test.ts kills a node at each of them under load.

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

/** Called after one durable step and before the next. */
export type ReachFailpoint = (failpoint: Failpoint) => void

export const noFailpoints: ReachFailpoint = () => {}
