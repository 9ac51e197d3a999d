// Directories that survive a power cut: a name is durable when the directory that holds it is synced, which neither mkdir nor
// rename does (fsync(2)). Windows has no such call and needs none.

import { mkdir, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { OperatorError } from '#shared/errors.ts'

/**
 * Makes the directory and those above it that are missing, and makes their names durable. An absolute path.
 * @throws OperatorError when it cannot be made
 */
export async function makeDurableDirectory(directory: string, options: { mode: number }): Promise<void> {
  const first = await mkdir(directory, { recursive: true, ...options }).catch(
    (cause: NodeJS.ErrnoException) => {
      throw new OperatorError(
        `The data directory ${directory} cannot be made (${cause.code}): set PORTOLAN_DATA_DIR to one that this user may write to.`,
        { cause },
      )
    },
  )
  if (first === undefined) return
  for (let path = directory; path !== dirname(first); path = dirname(path)) await syncDirectory(dirname(path))
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
