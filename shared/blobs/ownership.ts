// Watches the owner of the blob store while a process runs.
//
// The store is claimed at start. If it belongs to another owner, the start fails with a message. If it is unreachable
// at start, the process starts and asks again every few seconds. After that the marker is read once a minute, because
// an operator may adopt the store for another region at any time, and a volume may be unmounted. While the store is not
// known to belong to this database, no upload begins: the sweep of the real owner would remove it. Pulls continue.
// Uploads resume without a restart when the marker is right again.

import { startLoop } from '../loop.ts'
import { type BlobStore, StoreError, type StoreOwner } from './blob-store.ts'
import { claimStore, type KnownRows, type Marker, requireOwner, StoreOwnerError } from './store-owner.ts'

/** Interval while the owner is not known. */
const ASK_MS = 5_000
const RECHECK_MS = 60_000

export interface Ownership extends AsyncDisposable {
  /**
   * Reads the marker now.
   * @throws StoreOwnerError, StoreError
   */
  check(): Promise<Marker>
  /**
   * Costs nothing if the last read confirmed the owner.
   * @throws StoreError 'denied' or 'unavailable' if the store is not known to be ours
   */
  require(): Promise<void>
  /** The result of the last read. */
  known(): boolean
}

export interface OwnershipOptions {
  store: BlobStore
  mine: StoreOwner
  rows: KnownRows
  /** Called once per change: with the reason when uploads stop, with undefined when they resume. */
  onChange(reason: Error | undefined): void
}

/** @throws StoreOwnerError if the store has another owner; StoreError if it is configured wrongly */
export async function watchOwnership(options: OwnershipOptions): Promise<Ownership> {
  const { store, mine, rows } = options
  let claimed = false
  let problem: Error | undefined
  let lookedAtMs = 0

  async function look(): Promise<Marker> {
    lookedAtMs = performance.now()
    if (claimed) return requireOwner(store, mine)
    const marker = await claimStore(store, mine, rows)
    claimed = true
    return marker
  }

  async function check(): Promise<Marker> {
    try {
      const marker = await look()
      if (problem !== undefined) options.onChange(undefined)
      problem = undefined
      return marker
    } catch (thrown) {
      const expected = thrown instanceof StoreOwnerError || thrown instanceof StoreError
      // A store that is temporarily unreachable has not changed its owner.
      if (expected && !(claimed && thrown instanceof StoreError)) {
        if (problem?.message !== thrown.message) options.onChange(thrown)
        problem = thrown
      }
      throw thrown
    }
  }

  try {
    await check()
  } catch (thrown) {
    if (!(thrown instanceof StoreError) || !thrown.retryable) throw thrown
  }
  const loop = startLoop({
    everyMs: ASK_MS,
    async run() {
      if (problem === undefined && performance.now() - lookedAtMs < RECHECK_MS) return
      await check()
    },
    // `onChange` has already reported the error.
    onError: () => {},
  })
  return {
    check,
    async require() {
      if (problem === undefined) return
      const kind = problem instanceof StoreError ? problem.kind : 'denied'
      throw new StoreError(kind, `no upload begins: ${problem.message}`, { cause: problem })
    },
    known: () => problem === undefined,
    [Symbol.asyncDispose]: () => loop[Symbol.asyncDispose](),
  }
}

/** For the command that is about to take the store: until then nothing may be swept or uploaded. */
export const NOT_WATCHED: Ownership = Object.freeze({
  check: () => Promise.reject(new Error('nobody has asked whose the store is')),
  require: () => Promise.reject(new StoreError('denied', 'nobody has asked whose the store is')),
  known: () => false,
  [Symbol.asyncDispose]: async () => {},
})
