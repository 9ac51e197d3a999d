// Creates directories that survive a power failure. A name is durable once its parent directory is synced, which
// neither mkdir nor rename does (fsync(2)). Windows has no such call and does not need one.

import { mkdir, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { OperatorError } from '#shared/errors.ts'

/**
 * Creates the directory (an absolute path) and its missing parents, and makes their names durable.
 * @throws OperatorError if it cannot be created
 */
export async function makeDurableDirectory(directory: string, options: { mode: number }): Promise<void> {
  try {
    // One at a time: Node's recursive mkdir never returns where nothing can be created (for example under /proc).
    for (const path of await missing(directory)) {
      await mkdir(path, options).catch((thrown: NodeJS.ErrnoException) => {
        // Several processes may start at the same time.
        if (thrown.code !== 'EEXIST') throw thrown
      })
      await syncDirectory(dirname(path))
    }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new OperatorError(
      `The data directory ${directory} cannot be created (${code}): ` +
        'set PORTOLAN_DATA_DIR to one that this user may write to.',
      { cause },
    )
  }
}

/** Returns the directory and its parents that do not exist, topmost first. */
async function missing(directory: string): Promise<string[]> {
  const paths: string[] = []
  for (let path = directory; ; path = dirname(path)) {
    try {
      if (!(await stat(path)).isDirectory()) throw Object.assign(new Error(path), { code: 'ENOTDIR' })
      return paths.reverse()
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT' || path === dirname(path)) throw thrown
      paths.push(path)
    }
  }
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
