// Whether the database can be reached, logged once per change. When the database goes away, everything that needs it
// fails repeatedly: relay, webhooks, janitor, feeds, every request. Each reports its failure here, and a connection is
// tried. One line says that the database is out of reach, and one that it is back, however many parts fail meanwhile.
//
// If a connection was lost while others can be made (an administrator ended it, a proxy dropped it), this is a warning,
// at most one a second.

import { pause } from '../pause.ts'
import { meansUnreachable } from './failures.ts'
import { endSession, openSession } from './session.ts'

const PROBE_EVERY_MS = 1_000

export interface OutageOptions {
  url: string
  onLost(error: unknown): void
  onBack(seconds: number): void
  /** Called when one connection was lost and another could be made. */
  onBroken(error: unknown): void
}

export interface Outage extends AsyncDisposable {
  /**
   * Records a failure of a connection. Returns true if the database is out of reach; the failure then needs no log
   * line.
   */
  report(thrown: unknown): boolean
  /** Returns true from a failure until the database has answered again for a moment. */
  underWay(): boolean
}

export function watchOutages(options: OutageOptions): Outage {
  const stopping = new AbortController()
  let watching: Promise<void> | undefined

  async function probe(): Promise<boolean> {
    try {
      const client = await openSession(options.url, 'read', { onError: () => {} })
      endSession(client)
      return true
    } catch {
      return false
    }
  }

  /**
   * Waits until the database answers again, and then one more interval, because failures that were under way still
   * belong to this outage.
   */
  async function watch(reason: unknown): Promise<void> {
    const startMs = performance.now()
    let lost = false
    while (!(await probe()) && !stopping.signal.aborted) {
      if (!lost) options.onLost(reason)
      lost = true
      await pause(PROBE_EVERY_MS, { signal: stopping.signal, ref: true })
    }
    if (stopping.signal.aborted) return
    if (lost) options.onBack(Math.round((performance.now() - startMs) / 1_000))
    else options.onBroken(reason)
    await pause(PROBE_EVERY_MS, { signal: stopping.signal })
  }

  return {
    report(thrown) {
      if (!meansUnreachable(thrown)) return false
      if (!stopping.signal.aborted) {
        watching ??= watch(thrown).finally(() => {
          watching = undefined
        })
      }
      return true
    },
    underWay: () => watching !== undefined,
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await watching
    },
  }
}
