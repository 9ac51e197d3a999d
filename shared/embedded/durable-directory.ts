// Directories that survive a power cut: a name is durable when the directory that holds it is synced, which neither mkdir nor
// rename does (fsync(2)). Windows has no such call and needs none.

import { mkdir, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { OperatorError } from '#shared/errors.ts'

/**
 * Makes the directory and those above it that are missing, and makes their names durable. An absolute path.
 * @throws OperatorError when it cannot be made
 */
export async function makeDurableDirectory(directory: string, options: { mode: number }): Promise<void> {
  try {
    // One by one: Node's recursive mkdir never ends where nothing can be made (under /proc, for one).
    for (const path of await missing(directory)) {
      await mkdir(path, options).catch((thrown: NodeJS.ErrnoException) => {
        // Several processes may start at once.
        if (thrown.code !== 'EEXIST') throw thrown
      })
      await syncDirectory(dirname(path))
    }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new OperatorError(
      `The data directory ${directory} cannot be made (${code}): set PORTOLAN_DATA_DIR to one that this user may write to.`,
      { cause },
    )
  }
}

/** The directory and those above it that are not there, the uppermost first. */
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
