// Processes that are frozen in the middle of their work, and that they are.

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from './eventually.ts'
import type { Cleanup } from './postgres.ts'

/** One service in a process of its own, which freezes at the failpoint. Its port, 0 when it has none. */
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

/** https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: T is stopped. */
function stateOf(child: ChildProcess): string {
  return /\) (\w)/.exec(readFileSync(`/proc/${child.pid}/stat`, 'utf8'))?.[1] ?? ''
}
