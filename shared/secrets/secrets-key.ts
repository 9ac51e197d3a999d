// Where the keys that seal secrets come from: PORTOLAN_SECRETS_KEY, and the file `secrets-key` in the region's data
// directory. The file is made once, with an embedded database only: nodes on a shared database must share a key, and a
// key made on one node's disk would be lost with that disk. A file that is there is always read, behind the configured
// keys: API processes of an embedded region use it, and what it sealed still opens after a key was configured.
//
// A new file is complete and durable before it has its name, and never replaces another.

import { randomBytes } from 'node:crypto'
import { link, open, readFile, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { createSealer, type Sealer } from './sealer.ts'

const KEY_BYTES = 32
const KEY_LENGTH_MIN = 32

export interface SecretsKeyOptions {
  /** From the configuration; undefined: none. */
  readonly configured: readonly string[] | undefined
  /** The region's, which exists. */
  readonly directory: string
  /** Make the file if there is neither a file nor a configured key. */
  readonly mayMake: boolean
}

/** undefined: there is no key, so nothing can be sealed. @throws Error with a sentence about a file that is no key */
export async function openSealer(options: SecretsKeyOptions): Promise<Sealer | undefined> {
  const { configured, directory, mayMake } = options
  const path = secretsKeyPath(directory)
  let kept = await readKey(path)
  if (kept === undefined && configured === undefined && mayMake) {
    await makeKey(path)
    kept = await readKey(path)
  }
  const keys = [...(configured ?? []), ...(kept === undefined ? [] : [kept])]
  return keys.length === 0 ? undefined : createSealer(keys)
}

export function secretsKeyPath(directory: string): string {
  return join(directory, 'secrets-key')
}

async function readKey(path: string): Promise<string | undefined> {
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

async function makeKey(path: string): Promise<void> {
  const making = `${path}.${randomBytes(6).toString('hex')}`
  const file = await open(making, 'wx', 0o600)
  try {
    await file.writeFile(`${randomBytes(KEY_BYTES).toString('base64')}\n`)
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
}
