// Creates the data of the embedded Postgres once, with initdb and a random password that only this user can read. A
// crash cannot leave the data half created: it is made in a separate directory, then renamed. Everything that a later
// start needs is on disk before the next step: the password before the data that it opens, the data before its name.

import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { OperatorError } from '#shared/errors.ts'
import { syncDirectory } from './durable-directory.ts'
import { readIfThere } from './if-there.ts'
import type { Launcher } from './owner.ts'

const run = promisify(execFile)
/** The major version of the pinned binaries. They cannot read the data of any other major version. */
const MAJOR = '18'
const INITDB_TIMEOUT_MS = 60_000
const UNFINISHED = 'data.unfinished-'

/** Creates the cluster if there is none, and returns the password. @throws OperatorError */
export async function initializeCluster(options: {
  directory: string
  data: string
  initdb: string
  launcher: Launcher
}): Promise<string> {
  const { directory, data, initdb, launcher } = options
  const passwordFile = join(directory, 'password')
  // Also if finished data exists: a first start may die after the rename and before it removes the leftovers.
  for (const name of await readdir(directory)) {
    if (name.startsWith(UNFINISHED)) await rm(join(directory, name), { recursive: true, force: true })
  }
  const version = await readIfThere(join(data, 'PG_VERSION'))
  if (version !== undefined) {
    if (version.trim() !== MAJOR) {
      throw new OperatorError(
        `${data} was written by Postgres ${version.trim()}, but the embedded one is ${MAJOR}: dump it with its own ` +
          'release and restore it into a new data directory, or set PORTOLAN_DATABASE_URL.',
      )
    }
    const password = (await readIfThere(passwordFile))?.trim()
    if (password === undefined || password === '')
      throw new OperatorError(
        `${passwordFile} is missing or empty: restore it. It holds the password of ${data}.`,
      )
    return password
  }
  const password = randomBytes(24).toString('base64url')
  await writeFile(passwordFile, password, { mode: 0o600, flush: true })
  await syncDirectory(directory)
  const making = join(directory, `${UNFINISHED}${randomBytes(4).toString('hex')}`)
  await mkdir(making, { mode: 0o700 })
  const handed = join(making, 'password')
  const target = join(making, 'data')
  await mkdir(target, { mode: 0o700 })
  await writeFile(handed, password, { mode: 0o600 })
  for (const path of [making, handed, target]) await launcher.own(path)
  const { command, args } = launcher.wrap(initdb, [
    `--pgdata=${target}`,
    '--username=portolan',
    `--pwfile=${handed}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    '--locale=C',
    '--data-checksums',
  ])
  const environment = { PATH: '/usr/bin:/bin', LC_ALL: 'C' }
  await run(command, args, { cwd: directory, timeout: INITDB_TIMEOUT_MS, env: environment }).catch(
    (cause: Error & { stderr?: string }) => {
      const said = (cause.stderr || cause.message).trim().slice(-500)
      throw new OperatorError(`The embedded Postgres could not be set up in ${directory}: ${said}`, { cause })
    },
  )
  await rename(target, data).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOTEMPTY' && cause.code !== 'EEXIST') throw cause
    throw new OperatorError(
      `${data} contains files but no Postgres data (PG_VERSION is missing): restore it, or move it away to start over.`,
      { cause },
    )
  })
  await syncDirectory(directory)
  await rm(making, { recursive: true, force: true })
  return password
}
