// The free space of a volume, with a floor below which uploads are refused.
//
// The space that may still be written is the free space reported by the file system, minus what was admitted and is not
// yet in a file, minus what was written to files since the last report. So fifty uploads that begin at once cannot each
// be promised the same space. The file system is asked at most once a second. An upload of known length is admitted as
// a whole, before its first byte is read; one of unknown length is admitted write by write. While either streams, the
// real free space is watched too, because other programs also write to the volume.
//
// Each process counts its own uploads. Several processes on one volume see each other's bytes only when the file system
// reports them, at most a second late. Below the floor, admission fails with StoreError 'full'; reads are not affected.
// A floor of 0 refuses nothing.

import { statfs } from 'node:fs/promises'
import { StoreError } from '../blob-store.ts'

/** Minimum interval between queries to the file system. */
const ASK_MS = 1_000

/** Space reserved for one upload. */
export interface Admission extends Disposable {
  /**
   * Call this before bytes are passed to the file. Admits bytes that were not announced.
   * @throws StoreError 'full' if the floor would be crossed, or already is
   */
  expect(bytes: number): Promise<void>
  /** Reports that this many bytes are now in the file. */
  written(bytes: number): void
  /** Releases what was reserved and not written. Idempotent. */
  [Symbol.dispose](): void
}

export interface Volume {
  /** @throws StoreError 'full' if `bytes` more would cross the floor */
  admit(bytes: number): Promise<Admission>
  /** @throws StoreError 'full' below the floor */
  requireRoom(): Promise<void>
  /** Free bytes according to the file system, at most a second old. */
  freeBytes(): Promise<number>
}

export interface VolumeOptions {
  directory: string
  floorBytes: number
  /** For tests: the free bytes of the file system. */
  ask?: () => Promise<number>
  /** For tests: a monotonic clock. */
  nowMs?: () => number
}

export function createVolume(options: VolumeOptions): Volume {
  const { directory, floorBytes } = options
  const nowMs = options.nowMs ?? (() => performance.now())
  const ask =
    options.ask ??
    (async () => {
      const { bavail, bsize } = await statfs(directory)
      return bavail * bsize
    })
  let known: { free: number; atMs: number } | undefined
  let asking: Promise<void> | undefined
  /** Bytes admitted and not yet in a file. */
  let outstanding = 0
  /** Bytes written to files since the file system was last asked. */
  let recent = 0

  async function look(): Promise<number> {
    if (known === undefined || nowMs() - known.atMs >= ASK_MS) {
      asking ??= refresh()
      await asking
    }
    return (known?.free ?? 0) - recent
  }

  async function refresh(): Promise<void> {
    try {
      const before = recent
      const atMs = nowMs()
      known = { free: await ask(), atMs }
      // Bytes written during the query may or may not be in its result. They are counted twice rather than not at all.
      recent -= before
    } finally {
      asking = undefined
    }
  }

  const full = () => new StoreError('full', `${floorBytes} bytes have to stay free in ${directory}`)

  async function set(bytes: number): Promise<void> {
    if (floorBytes > 0 && (await look()) - outstanding - bytes < floorBytes) throw full()
    outstanding += bytes
  }

  async function requireRoom(): Promise<void> {
    if (floorBytes > 0 && (await look()) < floorBytes) throw full()
  }

  async function admit(announced: number): Promise<Admission> {
    await set(announced)
    let left = announced
    let due = 0
    return {
      async expect(bytes) {
        due += bytes
        if (due > left) {
          const more = due - left
          await set(more)
          left += more
        }
        await requireRoom()
      },
      written(bytes) {
        // Only what this admission still holds, so that nothing is released twice.
        const held = Math.min(bytes, left)
        left -= held
        due = Math.max(0, due - bytes)
        outstanding -= held
        recent += bytes
      },
      [Symbol.dispose]() {
        outstanding -= left
        left = 0
        due = 0
      },
    }
  }

  return { admit, requireRoom, freeBytes: () => look() }
}
