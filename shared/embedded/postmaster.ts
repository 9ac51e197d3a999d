// Who else is at a data directory: another live Portolan (refused), a Postgres whose Portolan was killed (stopped), a
// pid file whose process is gone, is a zombie, or is somebody else's by now (removed, or Postgres would refuse to start).

import { execFile } from 'node:child_process'
import { link, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)
const ORPHAN_STOP_MS = 15_000
const POLL_MS = 20

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

/** Ends a server that was left behind and removes a pid file that means nothing. */
export async function stopOrphan(data: string): Promise<void> {
  const postmaster = await readPostmaster(data)
  if (postmaster === undefined) return
  const giveUpAtMs = performance.now() + ORPHAN_STOP_MS
  let signalled = false
  while (await isPostgresOf(postmaster.pid, data)) {
    if (performance.now() > giveUpAtMs) {
      throw new Error(
        `The Postgres ${postmaster.pid} at ${data} was left by another process and does not stop.`,
      )
    }
    if (!signalled) process.kill(postmaster.pid, 'SIGINT')
    signalled = true
    await pause(POLL_MS)
  }
  await rm(join(data, 'postmaster.pid'), { force: true })
}

async function isPostgresOf(pid: number, data: string): Promise<boolean> {
  if (!isAlive(pid)) return false
  if (process.platform !== 'linux') return (await commandOf(pid)).includes(data)
  const stat = await readIfThere(`/proc/${pid}/stat`)
  const state = stat?.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3)
  if (stat === undefined || state === 'Z' || state === 'X') return false
  return ((await readIfThere(`/proc/${pid}/cmdline`)) ?? '').split('\0').includes(data)
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

/**
 * Makes this process the directory's owner until the returned function is called.
 * @throws Error with a sentence when another live process is
 */
export async function lockDirectory(directory: string): Promise<() => Promise<void>> {
  const path = join(directory, 'owner')
  const mine = `${process.pid} ${await startOf(process.pid)}`
  const draft = `${path}.${process.pid}`
  await writeFile(draft, mine, { mode: 0o600 })
  try {
    for (;;) {
      try {
        await link(draft, path)
        return () => rm(path, { force: true })
      } catch (thrown) {
        if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown
      }
      const recorded = (await readIfThere(path)) ?? ''
      const [pid, start] = recorded.split(' ')
      const owner = Number(pid)
      if (recorded === mine)
        throw new Error(`The data directory ${directory} is already open in this process.`)
      if (owner > 0 && owner !== process.pid && isAlive(owner) && (await startOf(owner)) === start) {
        throw new Error(
          `The data directory ${directory} is in use by process ${owner}: stop it, or set PORTOLAN_DATA_DIR to another directory.`,
        )
      }
      await rm(path, { force: true })
    }
  } finally {
    await rm(draft, { force: true })
  }
}

/** What tells a process from a later one with the same number: its start time, where the system shows it. */
async function startOf(pid: number): Promise<string> {
  const stat = await readIfThere(`/proc/${pid}/stat`)
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? 'unknown'
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return undefined
    throw thrown
  }
}
