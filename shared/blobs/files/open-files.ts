// Shares files that are open for reading between concurrent readers and keeps them open briefly afterwards. Pulls of
// one layer come in bursts, and opening, checking and closing its file costs each pull three rounds in the thread pool.
//
// Keys are written once and never reused, so an open file has the bytes its key stands for. Changes to the file are
// still noticed: the kernel is asked about the open file each time, which waits for no disk, and a removed file is no
// longer shared. The space of a removed file is freed when its last reader has finished and the idle time is over.

import { fstatSync, type Stats } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'

/**
 * A file without readers is closed after this time. Shorter than the time for which network file systems cache
 * attributes.
 */
const IDLE_MS = 2_000
/** Maximum number of open files without readers. */
const IDLE_MAX = 64

export interface OpenFile extends Disposable {
  readonly handle: FileHandle
}

export interface OpenFiles extends AsyncDisposable {
  /** Dispose the result after reading. @throws the errors of open(2) */
  open(path: string): Promise<OpenFile>
  /** Stats of a file that is open and still has its name; undefined: ask the file system. */
  stat(path: string): Stats | undefined
}

interface Entry {
  readonly path: string
  readonly handle: FileHandle
  readers: number
  idleSinceMs: number
}

export function createOpenFiles(): OpenFiles {
  /** Shared files, those idle longest first. */
  const entries = new Map<string, Entry>()
  const closing = new Set<Promise<void>>()
  let timer: NodeJS.Timeout | undefined

  function close({ handle }: Entry): void {
    // Nothing was written, so a failed close loses nothing.
    const closed = handle.close().catch(() => {})
    closing.add(closed)
    void closed.finally(() => closing.delete(closed))
  }

  /** Stops sharing the file. Its last reader closes it. */
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

  /** The shared file and the kernel's stats of it, if it still has its name. */
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
        // A concurrent call may have opened the file first. Then this handle is used by one reader only.
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

/**
 * undefined: the kernel no longer knows the file (a stale handle of a network file system), so it is reopened by name.
 */
function statOf({ handle }: Entry): Stats | undefined {
  try {
    return fstatSync(handle.fd)
  } catch {
    return undefined
  }
}
