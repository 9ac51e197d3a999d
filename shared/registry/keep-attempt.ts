// Protects a slow request body from the sweep: its bytes are in the store and no row names them yet.
//
// Most bodies arrive within seconds. The grace time protects them, and they cost nothing here. A body that is still
// arriving after a part of the grace time writes its keys into a row, and renews that row until it ends. A sweep then
// leaves its bytes alone, whatever their age and whatever any clock says. If the database cannot be reached, the upload
// continues and the next renewal tries again.

import type { Attempt, BlobStore } from '#shared/blobs/blob-store.ts'
import { endAttempt, renewAttempt } from '#shared/db/blob-keys.ts'
import type { Registry } from './registry.ts'

/** Well within the hour after which an attempt without renewals counts as dead. */
const RENEW_MS_MAX = 10 * 60_000
/** Number of renewals in one grace time. The first one comes while the bytes are still young. */
const RENEWALS_PER_GRACE = 4

/** Dispose the result when a row names the bytes, or when the bytes are dropped. */
export function keepAttempt(
  registry: Registry,
  { store, attempt }: { store: BlobStore; attempt: Attempt },
): AsyncDisposable {
  const graceMs = registry.orphanGraceSeconds * 1_000
  let renewing: Promise<void> | undefined
  let kept: readonly string[] = []

  async function renew(): Promise<void> {
    try {
      kept = [...new Set([...kept, ...attempt.keys()])]
      if (kept.length > 0) await renewAttempt(registry.db, { store: store.name, keys: kept })
    } catch (error) {
      registry.log.warn({ error }, 'a long upload could not be recorded; it will be tried again')
    }
  }

  const timer = setInterval(
    () => {
      renewing ??= renew().finally(() => {
        renewing = undefined
      })
    },
    Math.min(RENEW_MS_MAX, graceMs / RENEWALS_PER_GRACE),
  )
  timer.unref()
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await renewing
      if (kept.length === 0) return
      try {
        await endAttempt(registry.db, { store: store.name, keys: kept })
      } catch (error) {
        registry.log.warn({ error }, 'the end of a long upload could not be recorded; its row ends by itself')
      }
    },
  }
}
