// A Postgres whose Portolan was killed. Its postmaster is told to end, and the next start waits until every process of it is
// gone: backends outlive a postmaster that was killed, and hold its shared memory. Where the system can (server-lock.ts) that
// is known from a lock that each of them holds, whatever their numbers and in whichever container; elsewhere from the
// number in the pid file. Then its pid file and its socket's lock file mean nothing and are removed: by now the number in
// them may be somebody else's, and Postgres would refuse to start.

import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { OperatorError } from '#shared/errors.ts'
import { readIfThere } from './if-there.ts'
import type { ServerLock } from './server-lock.ts'

const run = promisify(execFile)
const POLL_MS = 20
/** SIGINT ends sessions and writes a checkpoint; SIGQUIT leaves recovery to the next start. */
export const STOP_SIGNALS = Object.freeze(['SIGINT', 'SIGQUIT', 'SIGKILL'] as const)
/** How long a server may take over each. */
export const STOP_TIMEOUT_MS = 10_000
/** https://www.postgresql.org/docs/current/runtime-config-connection.html: made beside the socket of this port. */
const SOCKET_LOCK = '.s.PGSQL.5432.lock'

export interface Postmaster {
  readonly pid: number
  /** 'starting', 'ready', 'stopping' ... */
  readonly status: string
}

/** The postmaster.pid file, whose eighth line is the status; undefined when there is none. */
export async function readPostmaster(data: string): Promise<Postmaster | undefined> {
  const text = await readIfThere(join(data, 'postmaster.pid'))
  if (text === undefined) return undefined
  const lines = text.split('\n')
  return { pid: Number(lines[0]), status: (lines[7] ?? '').trim() }
}

/**
 * Ends what was left behind, waits until nothing of it is alive, and removes what would keep a new server from starting.
 * To be called by the directory's owner only. @throws OperatorError when it does not end
 */
export async function clearServer(options: {
  data: string
  socketDirectory: string | undefined
  serverLock: ServerLock | undefined
}): Promise<void> {
  const { data, socketDirectory, serverLock } = options
  for (const signal of [...STOP_SIGNALS, undefined]) {
    const postmaster = await readPostmaster(data)
    const alive = postmaster !== undefined && (await isPostgresOf(postmaster.pid, data))
    if (alive && signal !== undefined) sendSignal(postmaster.pid, signal)
    if (await isGone({ data, pid: postmaster?.pid, serverLock })) {
      await rm(join(data, 'postmaster.pid'), { force: true })
      if (socketDirectory !== undefined) await rm(join(socketDirectory, SOCKET_LOCK), { force: true })
      return
    }
  }
  throw new OperatorError(
    `A Postgres that another process left at ${data} does not end: end every process whose working directory that is.`,
  )
}

/** True when nothing of an earlier server is alive, or is no more within the time of one signal. */
async function isGone(options: {
  data: string
  pid: number | undefined
  serverLock: ServerLock | undefined
}): Promise<boolean> {
  const { data, pid, serverLock } = options
  if (serverLock !== undefined) return serverLock.isFree(STOP_TIMEOUT_MS)
  const giveUpAtMs = performance.now() + STOP_TIMEOUT_MS
  while (pid !== undefined && (await isPostgresOf(pid, data))) {
    if (performance.now() > giveUpAtMs) return false
    await pause(POLL_MS)
  }
  return true
}

async function isPostgresOf(pid: number, data: string): Promise<boolean> {
  if (!isAlive(pid)) return false
  if (process.platform !== 'linux') return (await commandOf(pid)).includes(data)
  const stat = await readIfThere(`/proc/${pid}/stat`)
  const state = stat?.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3)
  if (stat === undefined || state === 'Z' || state === 'X') return false
  return ((await readIfThere(`/proc/${pid}/cmdline`)) ?? '').split('\0').includes(data)
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (thrown) {
    // It ended by itself meanwhile.
    if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown
  }
}

async function commandOf(pid: number): Promise<string> {
  try {
    const { stdout } = await run('ps', ['-o', 'command=', '-p', String(pid)])
    return stdout
  } catch {
    // ps fails exactly when there is no such process.
    return ''
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (thrown) {
    return (thrown as NodeJS.ErrnoException).code === 'EPERM'
  }
}
