// Syncs directories, which makes the name of a new file as durable as its bytes. Handles stay open (a store has 256
// directories). Callers that arrive during a sync share the next one: a sync covers only files that existed before it
// began.

import { type FileHandle, open } from 'node:fs/promises'

export interface DirectorySyncer extends AsyncDisposable {
  /** Resolves when every entry that was in the directory before the call is durable. */
  sync(path: string): Promise<void>
}

interface Directory {
  readonly handle: Promise<FileHandle>
  running: Promise<void> | undefined
  /** Begins when the running sync has ended. */
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
      // A failed sync fails only the callers that waited for it. Later callers start a new one.
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
