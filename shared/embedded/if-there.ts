// Asks for a file that may be absent. The embedded Postgres decides by what lies on the disk (a password, a server's pid
// file, a program of the system), so absence is an answer here and not an error. Every other failure to read is thrown.

import { access, readFile } from 'node:fs/promises'

/** False also when the path may not be reached. */
export async function exists(path: string): Promise<boolean> {
  try {
    await access(path)
    return true
  } catch {
    return false
  }
}

/** The text of the file; undefined: there is none, or it was of a process in /proc that has ended (ESRCH, proc(5)). */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return undefined
    throw thrown
  }
}
