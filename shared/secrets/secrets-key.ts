// Where the keys that seal secrets come from: PORTOLAN_SECRETS_KEY, and the file `secrets-key` in the region's data
// directory. The file is made once, with an embedded database only: nodes on a shared database must share a key, and a
// key made on one node's disk would be lost with that disk. A file that is there is always read, behind the configured
// keys: API processes of an embedded region use it, and what it sealed still opens after a key was configured.

import { join } from 'node:path'
import { makeKeyFile, readKeyFile } from './key-file.ts'
import { createSealer, type Sealer } from './sealer.ts'

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
  const kept = configured === undefined && mayMake ? await makeKeyFile(path) : await readKeyFile(path)
  const keys = [...(configured ?? []), ...(kept === undefined ? [] : [kept])]
  return keys.length === 0 ? undefined : createSealer(keys)
}

export function secretsKeyPath(directory: string): string {
  return join(directory, 'secrets-key')
}
