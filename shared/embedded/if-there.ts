// Reads files that may be absent. The embedded Postgres decides by what is on disk (a password, a server's pid file, a
// system program), so absence is a result here and not an error. Every other read failure is thrown.

import { access, readFile } from 'node:fs/promises'

/** Returns false also if the path is not accessible. */
export async function exists(path: string): Promise<boolean> {
  try {
    await access(path)
    return true
  } catch {
    return false
  }
}

/**
 * Returns the file's text. Returns undefined if it does not exist, or if it belonged to a process in /proc that has
 * ended (ESRCH, proc(5)).
 */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return undefined
    throw thrown
  }
}
