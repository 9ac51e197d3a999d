// Chooses the user that runs the embedded Postgres. Postgres refuses to run as root, so under root it runs as another
// user. If that user can reach the binaries and the data directory, a plain change of uid is enough. Otherwise (both
// are under a home that only root can enter) it runs inside a user namespace, where the other user's id maps to root's
// files. initdb needs a passwd entry for the uid, so an existing user is chosen. Nothing outside the data directory
// changes owner or mode.

import { execFile } from 'node:child_process'
import { chown, readFile, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { OperatorError } from '#shared/errors.ts'
import { exists } from './if-there.ts'
import type { ServerLock } from './server-lock.ts'

const run = promisify(execFile)
const CANDIDATES = Object.freeze(['postgres', 'nobody'])
const SETPRIV = '/usr/bin/setpriv'

export interface Launcher {
  /** Returns the command and arguments that run a program as the owner. It ends when this process does (Linux). */
  wrap(program: string, args: readonly string[]): { command: string; args: string[] }
  /** Gives a newly created directory to the owner. */
  own(path: string): Promise<void>
}

/** @param options.reached paths that the owner must be able to reach */
export async function postgresLauncher(options: {
  reached: readonly string[]
  serverLock: ServerLock | undefined
}): Promise<Launcher> {
  const launcher = await launcherAs(options.reached)
  const { serverLock } = options
  if (serverLock === undefined) return launcher
  return {
    ...launcher,
    wrap(program, args) {
      const locked = serverLock.wrap(program, args)
      return launcher.wrap(locked.program, locked.args)
    },
  }
}

async function launcherAs(reached: readonly string[]): Promise<Launcher> {
  const diesWithParent = process.platform === 'linux' && (await exists(SETPRIV))
  const setpriv = (args: readonly string[]) => ({ command: SETPRIV, args: ['--pdeathsig=INT', ...args] })
  if (process.getuid?.() !== 0) {
    return {
      wrap: (program, args) =>
        diesWithParent ? setpriv([program, ...args]) : { command: program, args: [...args] },
      own: async () => {},
    }
  }
  const user = await unprivilegedUser()
  if (!diesWithParent) {
    throw new OperatorError(
      'The embedded Postgres cannot run as root here (no setpriv): start Portolan as another user.',
    )
  }
  if (await everybodyReaches(reached)) {
    const ids = [`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups']
    return {
      wrap: (program, args) => setpriv([...ids, program, ...args]),
      own: (path) => chown(path, user.uid, user.gid),
    }
  }
  const namespace = ['unshare', '--user', `--map-user=${user.uid}`, `--map-group=${user.gid}`]
  await run(namespace[0] ?? '', [...namespace.slice(1), 'true']).catch((cause: unknown) => {
    throw new OperatorError(
      'The embedded Postgres cannot run as root from a directory that only root can enter: ' +
        "start Portolan as another user, or move it out of root's home.",
      { cause },
    )
  })
  return {
    // pdeathsig is set inside, after the last change of credentials, because such a change clears it.
    wrap: (program, args) => ({
      command: namespace[0] ?? '',
      args: [...namespace.slice(1), SETPRIV, '--pdeathsig=INT', program, ...args],
    }),
    own: async () => {},
  }
}

async function unprivilegedUser(): Promise<{ uid: number; gid: number }> {
  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n')
  for (const name of CANDIDATES) {
    const fields = lines.find((line) => line.startsWith(`${name}:`))?.split(':')
    if (fields !== undefined) return { uid: Number(fields[2]), gid: Number(fields[3]) }
  }
  throw new OperatorError(
    'The embedded Postgres needs a user other than root: start Portolan as another user.',
  )
}

/** Returns true if everybody may enter every parent directory. */
async function everybodyReaches(paths: readonly string[]): Promise<boolean> {
  for (const path of paths) {
    for (let directory = dirname(path); ; directory = dirname(directory)) {
      const { mode } = await stat(directory)
      if ((mode & 0o001) === 0) return false
      if (directory === dirname(directory)) break
    }
  }
  return true
}
