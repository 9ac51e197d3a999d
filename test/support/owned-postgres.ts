// Processes that own an embedded Postgres, for tests that kill them.

import assert from 'node:assert/strict'
import { type ChildProcess, fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Cleanup } from './postgres.ts'

export const OWNER = join(import.meta.dirname, 'postgres-owner.ts')

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return !/^\d+ \(.*\) Z/.test(spawnSync('cat', [`/proc/${pid}/stat`], { encoding: 'utf8' }).stdout)
  } catch {
    return false
  }
}

/** Starts a process that owns an embedded Postgres. */
export async function spawnOwner(
  t: Cleanup,
  directory: string,
  options: { uid?: number } = {},
): Promise<{ child: ChildProcess; pid: number; url: string }> {
  const child = fork(OWNER, [directory], {
    ...options,
    silent: true,
    env: { PATH: process.env.PATH, TMPDIR: '/tmp' },
  })
  t.after(() => child.kill('SIGKILL'))
  const answer = await Promise.race([once(child, 'message'), once(child, 'exit')])
  assert.equal(typeof answer[0], 'object', `the owner exited: ${answer[0]}`)
  return { child, ...(answer[0] as { pid: number; url: string }) }
}
