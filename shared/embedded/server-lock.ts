// A lock that every process of an embedded Postgres holds for as long as it lives. `flock` of util-linux opens the file, locks it
// and becomes the server, whose children inherit the open file and with it the lock (flock(2): it belongs to the open file
// description and ends when the last descriptor of it is closed). So the lock is free exactly when nothing of the server
// is alive any more, be its processes orphans, in another container, or their numbers used again. Linux only.

import { execFile } from 'node:child_process'
import { chmod, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { exists } from './if-there.ts'

const run = promisify(execFile)
const FLOCK = '/usr/bin/flock'
/** flock's own exit code when the lock was not had in time. */
const BUSY = 75

export interface ServerLock {
  /** Command and arguments that hold the lock until they and all that they start have ended. */
  wrap(program: string, args: readonly string[]): { program: string; args: string[] }
  /** Waits until nobody holds it; false when somebody still does. */
  isFree(waitMs: number): Promise<boolean>
}

/** undefined: this system has no `flock`. */
export async function createServerLock(path: string): Promise<ServerLock | undefined> {
  if (process.platform !== 'linux' || !(await exists(FLOCK))) return undefined
  // Readable by the user that runs the server, who cannot make it.
  await writeFile(path, '', { flag: 'a' })
  await chmod(path, 0o644)
  return {
    wrap: (program, args) => ({
      program: FLOCK,
      args: ['--no-fork', '--nonblock', '--conflict-exit-code', String(BUSY), path, program, ...args],
    }),
    async isFree(waitMs) {
      const seconds = String(waitMs / 1_000)
      try {
        await run(FLOCK, ['--wait', seconds, '--conflict-exit-code', String(BUSY), path, 'true'])
        return true
      } catch (thrown) {
        if ((thrown as { code?: unknown }).code === BUSY) return false
        throw thrown
      }
    },
  }
}
