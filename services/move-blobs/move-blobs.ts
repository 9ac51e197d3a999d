// Moving a region's blobs from wherever they are to the store that new ones go to, while it serves.
//
// Each blob is copied, hashed on the way, and then one statement points its row to the copy: before it, readers are sent
// to the old bytes, after it to the new ones. Old bytes stay for a while for those who had just looked. Rows say what is
// left to do, so a run that dies is simply begun again; what it had copied and not yet switched is an orphan for the
// janitor. A blob whose bytes are not what its digest says is left where it is and told.

import { setTimeout as pause } from 'node:timers/promises'
import { EMPTY_SESSION, StoreError } from '#shared/blobs/blob-store.ts'
import { claimStore } from '#shared/blobs/store-owner.ts'
import { type BlobRow, blobsElsewhere, relocateBlob, sumBlobsElsewhere } from '#shared/db/blobs.ts'
import { knownRows, otherStores } from '#shared/db/store-owner.ts'
import { algorithmOf } from '#shared/oci/digest.ts'
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
  /** Blobs that stay where they are, and why. */
  readonly failed: readonly { readonly digest: string; readonly reason: string }[]
}

/**
 * Moves everything that is not in `region.blobs`. `onProgress` is called after every chunk.
 * @throws StoreOwnerError before anything is copied when one of the stores is not this database's
 */
export async function moveAllBlobs(
  region: RegionWithStores,
  options: { keepOldMs: number; signal: AbortSignal; onProgress?: (progress: MoveProgress) => void },
): Promise<MoveResult> {
  const { signal } = options
  await region.ownership.check()
  for (const name of await otherStores(region.db, region.blobs.name)) {
    const store = await region.stores.named(name)
    await claimStore(store, region.owner, knownRows(region.db, store))
  }
  const total = await sumBlobsElsewhere(region.db, region.blobs.name)
  const failed: { digest: string; reason: string }[] = []
  const removals: Promise<void>[] = []
  let blobs = 0
  let bytes = 0
  const progress = () => ({ blobs, bytes, blobsTotal: total.blobs, bytesTotal: total.bytes })
  const onBytes = (count: number) => {
    bytes += count
    options.onProgress?.(progress())
  }

  async function moveOne(row: BlobRow): Promise<void> {
    try {
      if (await copyAndSwitch(region, row, { onBytes, signal })) {
        removals.push(removeLater(region, row, options.keepOldMs))
      }
      blobs++
    } catch (thrown) {
      if (!(thrown instanceof StoreError) || thrown.retryable) throw thrown
      failed.push({ digest: row.digest, reason: thrown.message })
    }
  }

  for (let after = ''; ; ) {
    signal.throwIfAborted()
    const page = await blobsElsewhere(region.db, { store: region.blobs.name, after, limit: PAGE })
    const rows = page.values()
    const workers = Array.from({ length: AT_ONCE }, async () => {
      for (const row of rows) await moveOne(row)
    })
    // All of them have ended before a failure of one is told: nothing moves behind the back of whoever hears it.
    const failure = (await Promise.allSettled(workers)).find(({ status }) => status === 'rejected')
    if (failure?.status === 'rejected') throw failure.reason
    const last = page.at(-1)
    if (last === undefined) break
    after = last.digest
    // One page's leftovers are gone before the next begins: nothing piles up in memory.
    await Promise.all(removals.splice(0))
  }
  return { ...progress(), failed }
}

/** True when the row now names the copy; false when somebody else changed it meanwhile, and the copy is dropped. */
async function copyAndSwitch(
  region: RegionWithStores,
  row: BlobRow,
  options: { onBytes: (count: number) => void; signal: AbortSignal },
): Promise<boolean> {
  const { signal } = options
  const algorithm = algorithmOf(row.digest)
  const from = await region.stores.named(row.store)
  await using attempt = await region.blobs.begin(EMPTY_SESSION, { algorithm, length: row.size, signal })
  const sink = {
    async write(chunk: Buffer) {
      options.onBytes(chunk.length)
      // The pump uses its memory again; the attempt keeps what it gets.
      await attempt.write(Buffer.from(chunk))
    },
  }
  if (row.size > 0) await from.send(row.key, { start: 0, end: row.size - 1 }, sink, signal)
  const session = row.size > 0 ? await attempt.finish() : EMPTY_SESSION
  const { object, surplus } = await region.blobs.complete(session, { algorithm, signal })
  const drop = () => region.blobs.remove([object.key, ...surplus])
  if (object.digest !== row.digest) {
    await drop()
    throw new StoreError('corrupt', `its bytes have the digest ${object.digest}`)
  }
  region.reach('blob-copied')
  if (await relocateBlob(region.db, { from: row, store: region.blobs.name, key: object.key })) {
    if (surplus.length > 0) await region.blobs.remove(surplus)
    return true
  }
  await drop()
  return false
}

async function removeLater(region: RegionWithStores, row: BlobRow, keepOldMs: number): Promise<void> {
  await pause(keepOldMs)
  try {
    await (await region.stores.named(row.store)).remove([row.key])
  } catch (thrown) {
    if (!(thrown instanceof StoreError)) throw thrown
    region.log.warn({ error: thrown, store: row.store, key: row.key }, 'old bytes could not be removed')
  }
}
