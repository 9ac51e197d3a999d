// Moves a region's blobs from their current stores to the store that receives new blobs, while the region serves.
//
// Each blob is copied and hashed on the way. One statement then points its row to the copy: before it, readers use the
// old bytes; after it, the new ones. The old bytes are kept for a short time for readers that have just read the old
// row. The rows record what remains, so after a crash you run the command again. A copy whose row was not switched is
// an orphan that the janitor removes. A blob whose bytes do not match its digest stays in its store and is reported.
// The caller holds a lease. The lease is checked immediately before each switch of a row and each removal, so a run
// that was frozen while another took over changes nothing when it resumes.
//
// Small blobs stay in the database. If PORTOLAN_INLINE_BYTES_MAX is 0, they are moved to the store too.

import { EMPTY_SESSION, StoreError } from '#shared/blobs/blob-store.ts'
import { claimStore } from '#shared/blobs/store-owner.ts'
import { type BlobRow, blobsElsewhere, relocateBlob, sumBlobsElsewhere } from '#shared/db/blobs.ts'
import type { Held } from '#shared/db/lease.ts'
import { knownRows, otherStores } from '#shared/db/store-owner.ts'
import { algorithmOf } from '#shared/oci/digest.ts'
import { pause } from '#shared/pause.ts'
import type { RegionWithStores } from '#shared/region.ts'

const PAGE = 200
const AT_ONCE = 4

export interface MoveProgress {
  readonly blobs: number
  readonly bytes: number
  readonly blobsTotal: number
  readonly bytesTotal: number
}

export interface MoveResult extends MoveProgress {
  /** Blobs that were not moved, and why. */
  readonly failed: readonly { readonly digest: string; readonly reason: string }[]
}

export interface MoveOptions {
  /** How long to keep old bytes after their row is switched. */
  readonly keepOldMs: number
  /** The lease that excludes other runs. */
  readonly held: Held
  readonly signal: AbortSignal
  /** Called after every chunk. */
  readonly onProgress?: (progress: MoveProgress) => void
}

/**
 * Moves all blobs that are not where new blobs are written.
 * @throws StoreOwnerError before anything is copied, if one of the stores does not belong to this database
 * @throws LeaseLostError if the lease is lost; nothing is switched or removed after that
 */
export async function moveAllBlobs(region: RegionWithStores, options: MoveOptions): Promise<MoveResult> {
  const { signal } = options
  await region.ownership.check()
  for (const name of await otherStores(region.db, region.blobs.name)) {
    const store = await region.stores.named(name)
    await claimStore(store, region.owner, knownRows(region.db, store))
  }
  const kept = [region.blobs.name]
  if (region.config.inlineBytesMax > 0) kept.push(region.smallBlobs.store.name)
  const total = await sumBlobsElsewhere(region.db, kept)
  const failed: { digest: string; reason: string }[] = []
  let blobs = 0
  let bytes = 0
  const progress = () => ({ blobs, bytes, blobsTotal: total.blobs, bytesTotal: total.bytes })
  const onBytes = (count: number) => {
    bytes += count
    options.onProgress?.(progress())
  }

  /** Moves the rows of one page. Removes the old bytes of the blobs that moved, even if others failed. */
  async function movePage(page: readonly BlobRow[]): Promise<void> {
    const moved: BlobRow[] = []
    const moveOne = async (row: BlobRow) => {
      try {
        if (await copyAndSwitch(region, row, { ...options, onBytes })) moved.push(row)
        blobs++
      } catch (thrown) {
        if (!(thrown instanceof StoreError) || thrown.retryable) throw thrown
        failed.push({ digest: row.digest, reason: thrown.message })
      }
    }
    const rows = page.values()
    const workers = Array.from({ length: AT_ONCE }, async () => {
      for (const row of rows) await moveOne(row)
    })
    // Wait for all workers before throwing the failure of one, so that nothing moves after the caller sees it.
    const failure = (await Promise.allSettled(workers)).find(({ status }) => status === 'rejected')
    await removeOld(region, moved, options)
    if (failure?.status === 'rejected') throw failure.reason
  }

  for (let after = ''; ; ) {
    signal.throwIfAborted()
    const page = await blobsElsewhere(region.db, { stores: kept, after, limit: PAGE })
    const last = page.at(-1)
    if (last === undefined) break
    await movePage(page)
    after = last.digest
  }
  return { ...progress(), failed }
}

/** Returns true if the row now names the copy, or false if the row changed meanwhile and the copy was removed. */
async function copyAndSwitch(
  region: RegionWithStores,
  row: BlobRow,
  options: MoveOptions & { onBytes: (count: number) => void },
): Promise<boolean> {
  const { signal, held } = options
  const algorithm = algorithmOf(row.digest)
  const from = await region.stores.named(row.store)
  await using attempt = await region.blobs.begin(EMPTY_SESSION, { algorithm, length: row.size, signal })
  const sink = {
    async write(chunk: Buffer) {
      options.onBytes(chunk.length)
      // The sender reuses its buffer, and the attempt keeps the chunks it receives, so copy each chunk.
      await attempt.write(Buffer.from(chunk))
    },
  }
  if (row.size > 0) await from.send(row.key, { start: 0, end: row.size - 1 }, sink, signal)
  const session = row.size > 0 ? await attempt.finish() : EMPTY_SESSION
  const { object, surplus } = await region.blobs.complete(session, { algorithm, signal })
  const remove = async (keys: readonly string[]) => {
    held.requireHeld()
    await region.blobs.remove(keys)
  }
  if (object.digest !== row.digest) {
    await remove([object.key, ...surplus])
    throw new StoreError('corrupt', `its bytes have the digest ${object.digest}`)
  }
  region.reach('blob-copied')
  held.requireHeld()
  const switched = await relocateBlob(region.db, { from: row, store: region.blobs.name, key: object.key })
  const unused = switched ? surplus : [object.key, ...surplus]
  if (unused.length > 0) await remove(unused)
  return switched
}

/**
 * Waits `keepOldMs`, so that readers of the old row can open the old bytes, then removes them.
 * @throws LeaseLostError if the lease is lost; nothing more is removed
 */
async function removeOld(
  region: RegionWithStores,
  rows: readonly BlobRow[],
  options: MoveOptions,
): Promise<void> {
  if (rows.length === 0) return
  await pause(options.keepOldMs, { ref: true })
  for (const { store, key } of rows) {
    try {
      const old = await region.stores.named(store)
      options.held.requireHeld()
      await old.remove([key])
    } catch (thrown) {
      if (!(thrown instanceof StoreError)) throw thrown
      region.log.warn({ error: thrown, store, key }, 'failed to remove old bytes')
    }
  }
}
