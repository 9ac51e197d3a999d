// The free space of a volume, and a floor under it that uploads may not cross.
//
// What may still be written is what the file system says is free, less what was admitted and is not yet in a file, less
// what went into files since the file system was asked. So fifty uploads that begin at once cannot each be promised the
// same space. The file system is asked at most once a second. An upload whose length is known is admitted whole, before
// its first byte is read; one whose length is not known is admitted write by write. While either streams, the real free
// space is watched too: other programs write here as well.
//
// Each process counts its own uploads. Several processes on one volume see each other's bytes only when the file system
// reports them, at most a second late. Below the floor admission fails with StoreError 'full'; reading is never asked. A
// floor of 0 refuses nothing.

import { statfs } from 'node:fs/promises'
import { StoreError } from '../blob-store.ts'

/** The file system is asked at most this often. */
const ASK_MS = 1_000

/** Bytes set aside for one upload. */
export interface Admission extends Disposable {
  /**
   * To be called before bytes are handed to the file. Admits what was not announced.
   * @throws StoreError 'full' when the floor would be crossed, or already is
   */
  expect(bytes: number): Promise<void>
  /** So many bytes are in the file now. */
  written(bytes: number): void
  /** Gives back what was set aside and not written. Idempotent. */
  [Symbol.dispose](): void
}

export interface Volume {
  /** @throws StoreError 'full' when `bytes` more would cross the floor */
  admit(bytes: number): Promise<Admission>
  /** @throws StoreError 'full' below the floor */
  requireRoom(): Promise<void>
  /** Free bytes by the file system, at most a second old. */
  freeBytes(): Promise<number>
}

export interface VolumeOptions {
  directory: string
  floorBytes: number
  /** Test seam: the file system's free bytes. */
  ask?: () => Promise<number>
  /** Test seam: a monotonic clock. */
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
  /** Admitted and not yet in a file. */
  let outstanding = 0
  /** In files since the file system was last asked. */
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
      // What was written meanwhile may or may not be in the answer: it is counted twice rather than not at all.
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
        // Only what this admission still holds: nothing is given back twice.
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
