// Files that hold one key each, readable only by their user. A new file is complete and durable before it gets its
// name, and it never replaces another one: if several processes create it at the same time, all read the same key.

import { randomBytes } from 'node:crypto'
import { link, open, readFile, rm } from 'node:fs/promises'
import { dirname } from 'node:path'

const KEY_BYTES = 32
const KEY_LENGTH_MIN = 32

/** Returns undefined if there is no file. @throws Error if the file does not hold a valid key */
export async function readKeyFile(path: string): Promise<string | undefined> {
  let key: string
  try {
    key = (await readFile(path, 'utf8')).trim()
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new Error(`The secrets key cannot be read: ${(thrown as Error).message}.`, { cause: thrown })
  }
  if (key.length < KEY_LENGTH_MIN) {
    throw new Error(
      `${path} does not hold a key of ${KEY_LENGTH_MIN} or more characters: restore it from a backup, or remove it. ` +
        'A new key is then created, but it opens nothing that was sealed before.',
    )
  }
  return key
}

/**
 * Returns the key in the file. Creates the file if it does not exist; its directory must exist.
 *
 * @param key content of a new file; random if it is not given
 */
export async function makeKeyFile(path: string, key?: string): Promise<string> {
  const known = await readKeyFile(path)
  if (known !== undefined) return known
  const made = key ?? randomBytes(KEY_BYTES).toString('base64')
  const making = `${path}.${randomBytes(6).toString('hex')}`
  const file = await open(making, 'wx', 0o600)
  try {
    await file.writeFile(`${made}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  try {
    await link(making, path)
  } catch (thrown) {
    // Another process created one in the meantime; use that one.
    if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown
  } finally {
    await rm(making, { force: true })
  }
  const directory = await open(dirname(path), 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
  return (await readKeyFile(path)) ?? made
}
