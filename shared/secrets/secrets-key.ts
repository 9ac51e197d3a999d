// Finds the keys that seal secrets: PORTOLAN_SECRETS_KEY, and the file `secrets-key` in the region's data directory.
// The file is created once, and only with an embedded database. Nodes on a shared database must share a key, and a key
// on one node's disk would be lost with that disk. An existing file is always read, after the configured keys: API
// processes of an embedded region use it, and what it sealed must still open after a key was configured.

import { join } from 'node:path'
import { makeKeyFile, readKeyFile } from './key-file.ts'
import { createSealer, type Sealer } from './sealer.ts'

export interface SecretsKeyOptions {
  /** From the configuration; undefined if none is set. */
  readonly configured: readonly string[] | undefined
  /** The region's directory, which must exist. */
  readonly directory: string
  /** Whether to create the file if there is neither a file nor a configured key. */
  readonly mayMake: boolean
}

/**
 * Returns undefined if there is no key, so nothing can be sealed.
 * @throws Error if the file does not hold a valid key
 */
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
