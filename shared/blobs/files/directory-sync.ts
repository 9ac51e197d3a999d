// Syncing directories: what makes a new file's name as durable as its bytes. Handles stay open (a store has 256
// directories), and callers that come while a sync is under way share the next one: a sync counts for everybody whose
// file was there before it began, and for nobody else.

import { type FileHandle, open } from 'node:fs/promises'

export interface DirectorySyncer extends AsyncDisposable {
  /** Resolves when every entry that was in the directory before the call is durable. */
  sync(path: string): Promise<void>
}

interface Directory {
  readonly handle: Promise<FileHandle>
  running: Promise<void> | undefined
  /** Begins when the running one has ended. */
  next: Promise<void> | undefined
}

export function createDirectorySyncer(): DirectorySyncer {
  const directories = new Map<string, Directory>()

  async function start(directory: Directory): Promise<void> {
    directory.next = undefined
    const handle = await directory.handle
    directory.running = handle.sync().finally(() => {
      directory.running = undefined
    })
    await directory.running
  }

  return {
    sync(path) {
      let directory = directories.get(path)
      if (directory === undefined) {
        directory = { handle: open(path, 'r'), running: undefined, next: undefined }
        directories.set(path, directory)
      }
      const known = directory
      if (known.next !== undefined) return known.next
      // A failed sync fails those who waited for it; whoever comes after begins their own.
      const before = known.running ?? Promise.resolve()
      known.next = before.catch(() => {}).then(() => start(known))
      return known.next
    },
    async [Symbol.asyncDispose]() {
      const open = [...directories.values()]
      directories.clear()
      for (const { handle, running, next } of open) {
        await Promise.allSettled([running, next])
        await (await handle).close()
      }
    },
  }
}
