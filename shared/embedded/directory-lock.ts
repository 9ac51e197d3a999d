// Ensures that a data directory has one owner. The operating system holds the lock, so it ends with its process,
// however that process ends. A lock is never stale, and nobody has to decide whether a process id still means the same
// process.
//
// Node has no file locks. SQLite, which Node includes, uses them on every system (fcntl, LockFileEx). They also
// work across containers that share the directory. The lock is an exclusive transaction on an empty database that is
// never written. Nothing else in this process may open the database file: closing it would drop the lock
// (https://sqlite.org/howtocorrupt.html, 2.2). A file next to it names the owner for people; nothing depends on it.

import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as pause } from 'node:timers/promises'
import { OperatorError } from '#shared/errors.ts'

/** https://sqlite.org/rescode.html#busy */
const SQLITE_BUSY = 5
/** A killed owner may take this long to exit. */
const WAIT_MS = 2_000
/** The lock is taken in steps, so two simultaneous attempts can both fail. Each retries after a random pause. */
const PAUSE_MS = 10

/**
 * Makes this process the directory's owner until the returned function is called.
 * @throws OperatorError if another process owns it, or if the directory cannot be locked
 */
export async function lockDirectory(
  directory: string,
  options: { waitMs?: number } = {},
): Promise<() => Promise<void>> {
  const giveUpAtMs = performance.now() + (options.waitMs ?? WAIT_MS)
  for (;;) {
    const held = take(directory)
    if (held !== undefined) {
      const release = async () => held.close()
      try {
        await tellOwner(directory)
      } catch (thrown) {
        await release()
        throw thrown
      }
      return release
    }
    if (performance.now() > giveUpAtMs) break
    await pause(PAUSE_MS * (0.5 + Math.random()))
  }
  const owner = (await readOwner(directory)) ?? 'another process'
  throw new OperatorError(
    `The data directory ${directory} is in use by ${owner}: stop it, or set PORTOLAN_DATA_DIR to another directory.`,
  )
}

/** Returns undefined if another process holds the lock. */
function take(directory: string): DatabaseSync | undefined {
  const path = join(directory, 'lock')
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(path)
    database.exec('begin exclusive')
    return database
  } catch (cause) {
    database?.close()
    if ((cause as { errcode?: number }).errcode === SQLITE_BUSY) return undefined
    throw new OperatorError(
      `The data directory ${directory} cannot be locked (${path}: ${(cause as Error).message}): ` +
        'set PORTOLAN_DATA_DIR to a directory that this user may write to, on a file system with locks.',
      { cause },
    )
  }
}

async function tellOwner(directory: string): Promise<void> {
  const path = join(directory, 'owner')
  const draft = `${path}.${process.pid}`
  await writeFile(draft, String(process.pid), { mode: 0o600 })
  await rename(draft, path)
}

async function readOwner(directory: string): Promise<string | undefined> {
  try {
    return `process ${await readFile(join(directory, 'owner'), 'utf8')}`
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw thrown
  }
}
