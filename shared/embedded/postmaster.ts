// Stops a Postgres whose Portolan was killed. The next start signals its postmaster and waits until all of its
// processes are gone, because backends outlive a killed postmaster and hold its shared memory. Where the system
// supports it (server-lock.ts), a lock that each process holds tells when they are gone, whatever their process ids and
// containers. Elsewhere the pid file tells. Afterwards the pid file and the socket's lock file are obsolete and are
// removed: the id in them may belong to another process by now, and Postgres would refuse to start.

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
/** SIGINT ends sessions and writes a checkpoint. SIGQUIT leaves recovery to the next start. */
export const STOP_SIGNALS = Object.freeze(['SIGINT', 'SIGQUIT', 'SIGKILL'] as const)
/** The time that a server has to exit after each signal. */
export const STOP_TIMEOUT_MS = 10_000
/** Created next to the socket of this port: https://www.postgresql.org/docs/current/runtime-config-connection.html */
const SOCKET_LOCK = '.s.PGSQL.5432.lock'

export interface Postmaster {
  readonly pid: number
  /** 'starting', 'ready', 'stopping' ... */
  readonly status: string
}

/** Parses postmaster.pid, whose eighth line is the status. Returns undefined if there is none. */
export async function readPostmaster(data: string): Promise<Postmaster | undefined> {
  const text = await readIfThere(join(data, 'postmaster.pid'))
  if (text === undefined) return undefined
  const lines = text.split('\n')
  return { pid: Number(lines[0]), status: (lines[7] ?? '').trim() }
}

/**
 * Stops the server that was left behind, waits until none of its processes is alive, and removes the files that would
 * keep a new server from starting. Only the directory's owner may call this.
 * @throws OperatorError if it does not end
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
    `A Postgres that another process left running at ${data} does not stop: ` +
      'stop every process whose working directory this is.',
  )
}

/** Returns true if no process of an earlier server is alive, or if the last one ends within the time of one signal. */
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
    // It has ended by itself in the meantime.
    if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown
  }
}

async function commandOf(pid: number): Promise<string> {
  try {
    const { stdout } = await run('ps', ['-o', 'command=', '-p', String(pid)])
    return stdout
  } catch {
    // ps fails only if there is no such process.
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
