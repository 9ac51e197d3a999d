// A lock that every process of an embedded Postgres holds while it lives. `flock` of util-linux opens the file, locks
// it and then executes the server, whose children inherit the open file and with it the lock. (flock(2): the lock
// belongs to the open file description and ends when its last descriptor is closed.) So the lock is free only when no
// process of the server is alive, even if its processes are orphans, run in another container, or had their ids reused.
// Linux only.

import { execFile } from 'node:child_process'
import { chmod, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { exists } from './if-there.ts'

const run = promisify(execFile)
const FLOCK = '/usr/bin/flock'
/** flock's exit code if it did not get the lock in time. */
const BUSY = 75

export interface ServerLock {
  /** Returns a command and arguments that hold the lock until they and all processes they start have ended. */
  wrap(program: string, args: readonly string[]): { program: string; args: string[] }
  /** Waits until no process holds the lock. Returns false if one still does after waitMs. */
  isFree(waitMs: number): Promise<boolean>
}

/** Returns undefined if this system has no `flock`. */
export async function createServerLock(path: string): Promise<ServerLock | undefined> {
  if (process.platform !== 'linux' || !(await exists(FLOCK))) return undefined
  // Readable by the user that runs the server, which cannot create it.
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
