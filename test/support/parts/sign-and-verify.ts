// cosign with only a key pair: no transparency log, and no network except the registry.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { command } from './command.ts'

export interface Signing {
  cosign: string
  crane: string
  /** repository@digest */
  image: string
  directory: string
  /** The options that differ between cosign versions. */
  signFlags: readonly string[]
}

/** Signs, verifies, and checks that verification with another key fails. */
export async function signAndVerify({ cosign, image, directory, signFlags }: Signing): Promise<void> {
  const run = (...args: string[]) =>
    command(cosign, args, { cwd: directory, env: { COSIGN_PASSWORD: '', HOME: directory } })
  for (const key of ['ours', 'other'])
    await run('generate-key-pair', '--output-key-prefix', join(directory, key))
  await run(
    'sign',
    '-y',
    '--key',
    'ours.key',
    '--tlog-upload=false',
    '--allow-http-registry',
    ...signFlags,
    image,
  )
  const verify = (key: string) =>
    run('verify', '--key', `${key}.pub`, '--insecure-ignore-tlog=true', '--allow-http-registry', image)
  assert.match(await verify('ours'), /docker-manifest-digest|critical/)
  await assert.rejects(verify('other'))
}
