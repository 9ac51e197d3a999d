// Freezes processes in the middle of their work, and checks that they are frozen.

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from './eventually.ts'
import type { Cleanup } from './postgres.ts'

/** Starts one service in a separate process that freezes at the failpoint. The port is 0 if the service has none. */
export async function frozenNode(
  t: Cleanup,
  service: 'api' | 'janitor' | 'relay' | 'webhooks',
  options: { databaseUrl: string; dataDir: string; failpoint?: string },
): Promise<{ child: ChildProcess; port: number }> {
  const { databaseUrl, dataDir, failpoint = '' } = options
  const child = fork(join(import.meta.dirname, 'frozen-node.ts'), [service, databaseUrl, dataDir, failpoint])
  t.after(() => child.kill('SIGKILL'))
  const [port] = await once(child, 'message')
  return { child, port: port as number }
}

/** Resolves when the process is frozen. */
export async function untilFrozen(child: ChildProcess): Promise<void> {
  await eventually('the process to be frozen', () => stateOf(child) === 'T')
}

export async function freeze(child: ChildProcess): Promise<void> {
  child.kill('SIGSTOP')
  await untilFrozen(child)
}

/** State T means stopped: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html */
function stateOf(child: ChildProcess): string {
  return /\) (\w)/.exec(readFileSync(`/proc/${child.pid}/stat`, 'utf8'))?.[1] ?? ''
}
