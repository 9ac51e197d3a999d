// Files that are open for reading, shared by those who read the same one and kept for a moment afterwards: pulls of one
// layer come in bursts, and to open, look at and close its file costs each of them three turns of the thread pool.
//
// Keys are written once and never reused, so an open file has the bytes its key stands for. What happens to the file
// meanwhile is seen all the same: the kernel is asked about the open file each time, which waits for no disk, and one
// that was removed is no longer shared. A removed file's space is free when its last reader and the moment are over.

import { fstatSync, type Stats } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'

/** A file that nobody reads is closed after this. Shorter than network file systems believe in what they were told. */
const IDLE_MS = 2_000
/** Files that nobody reads and that are open. */
const IDLE_MAX = 64

export interface OpenFile extends Disposable {
  readonly handle: FileHandle
}

export interface OpenFiles extends AsyncDisposable {
  /** To be disposed after reading. @throws what open(2) says */
  open(path: string): Promise<OpenFile>
  /** Of a file that is open and still has its name; undefined: ask the file system. */
  stat(path: string): Stats | undefined
}

interface Entry {
  readonly path: string
  readonly handle: FileHandle
  readers: number
  idleSinceMs: number
}

export function createOpenFiles(): OpenFiles {
  /** Shared ones. The longest idle are in front. */
  const entries = new Map<string, Entry>()
  const closing = new Set<Promise<void>>()
  let timer: NodeJS.Timeout | undefined

  function close({ handle }: Entry): void {
    // Nothing was written: there is nothing that a failure to close could lose.
    const closed = handle.close().catch(() => {})
    closing.add(closed)
    void closed.finally(() => closing.delete(closed))
  }

  /** No longer shared; closed by its last reader. */
  function forget(entry: Entry): void {
    if (entries.get(entry.path) === entry) entries.delete(entry.path)
    if (entry.readers === 0) close(entry)
  }

  function sweep(): void {
    timer = undefined
    const idle = [...entries.values()].filter(({ readers }) => readers === 0)
    const late = performance.now() - IDLE_MS
    for (const [index, entry] of idle.entries()) {
      if (entry.idleSinceMs <= late || index < idle.length - IDLE_MAX) forget(entry)
    }
    if (idle.length > 0) sweepLater()
  }

  function sweepLater(): void {
    timer ??= setTimeout(sweep, IDLE_MS / 2).unref()
  }

  function release(entry: Entry): void {
    entry.readers--
    if (entry.readers > 0) return
    if (entries.get(entry.path) !== entry) {
      close(entry)
      return
    }
    entry.idleSinceMs = performance.now()
    entries.delete(entry.path)
    entries.set(entry.path, entry)
    if (entries.size > 2 * IDLE_MAX) sweep()
    sweepLater()
  }

  /** The shared one and what the kernel says of it, while it still has its name. */
  function look(path: string): { entry: Entry; found: Stats } | undefined {
    const entry = entries.get(path)
    if (entry === undefined) return undefined
    const found = statOf(entry)
    if (found !== undefined && found.nlink > 0) return { entry, found }
    forget(entry)
    return undefined
  }

  return {
    async open(path) {
      let entry = look(path)?.entry
      if (entry === undefined) {
        const handle = await open(path, 'r')
        entry = { path, handle, readers: 0, idleSinceMs: 0 }
        // Somebody who opened it at the same time may have been faster: then this one is read alone.
        if (!entries.has(path)) entries.set(path, entry)
      }
      entry.readers++
      const held = entry
      return { handle: held.handle, [Symbol.dispose]: () => release(held) }
    },
    stat: (path) => look(path)?.found,
    async [Symbol.asyncDispose]() {
      clearTimeout(timer)
      for (const entry of entries.values()) if (entry.readers === 0) forget(entry)
      await Promise.all(closing)
    },
  }
}

/** undefined: the kernel no longer knows it (a network file system's stale handle), so it is opened again by its name. */
function statOf({ handle }: Entry): Stats | undefined {
  try {
    return fstatSync(handle.fd)
  } catch {
    return undefined
  }
}
