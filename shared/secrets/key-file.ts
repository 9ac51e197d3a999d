// Files that hold one key each, readable by their user alone. A new file is complete and durable before it has its name,
// and never replaces another: of many who make it at once all read the same key.

import { randomBytes } from 'node:crypto'
import { link, open, readFile, rm } from 'node:fs/promises'
import { dirname } from 'node:path'

const KEY_BYTES = 32
const KEY_LENGTH_MIN = 32

/** undefined: there is no file. @throws Error with a sentence about a file that is no key */
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
      `${path} holds no key of ${KEY_LENGTH_MIN} or more characters: restore it from a backup, or remove it to have a new one made, which opens nothing that was sealed before.`,
    )
  }
  return key
}

/**
 * The key that the file holds. A file that is not there is made, in a directory that is.
 *
 * @param key what a new file holds; random if it is not given
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
    // Another process made one meanwhile: that one counts.
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
