// A real file system that is soon full: a tmpfs of some megabytes. Mounting needs root; where that is not to be had a
// test is skipped in one visible line, and under CI it fails.

import { execFile } from 'node:child_process'
import { mkdtemp, open, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'

const run = promisify(execFile)
const MIB = 1024 * 1024

export interface SmallDisk {
  readonly directory: string
  /** Bytes that can still be written. */
  free(): Promise<number>
  /** The least that was free while the work ran, looked at all the time. */
  leastFree(work: () => Promise<unknown>): Promise<number>
  /** Takes all space but so many bytes. */
  fill(leaveBytes?: number): Promise<void>
  /** Gives it back. */
  empty(): Promise<void>
}

/** undefined: the test was skipped. Unmounted after the test, when what runs on it has ended. */
export async function smallDisk(t: TestContext, bytes: number): Promise<SmallDisk | undefined> {
  const directory = await mkdtemp(join(tmpdir(), 'portolan-disk-'))
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=0755`, 'tmpfs', directory])
  } catch (thrown) {
    await rm(directory, { recursive: true, force: true })
    if (process.env.CI === 'true') throw thrown
    t.skip('a tmpfs cannot be mounted here (needs root)')
    return undefined
  }
  const ballast = join(directory, 'ballast')
  const free = async () => {
    const { bavail, bsize } = await statfs(directory)
    return bavail * bsize
  }
  // Lazily: hooks run in the order they were added, so a node that the test starts on it ends later.
  t.after(async () => {
    await run('umount', ['--lazy', directory])
    await rm(directory, { recursive: true, force: true })
  })
  return {
    directory,
    free,
    async leastFree(work) {
      let least = await free()
      let running = true
      const watching = (async () => {
        while (running) {
          least = Math.min(least, await free())
          await new Promise((next) => setImmediate(next))
        }
      })()
      try {
        await work()
      } finally {
        running = false
        await watching
      }
      return least
    },
    async fill(leaveBytes = 0) {
      const file = await open(ballast, 'a')
      try {
        while ((await free()) > leaveBytes) {
          await file.write(Buffer.alloc(Math.min(MIB, (await free()) - leaveBytes)))
        }
      } catch (thrown) {
        if ((thrown as NodeJS.ErrnoException).code !== 'ENOSPC') throw thrown
      } finally {
        await file.close()
      }
    },
    empty: () => rm(ballast, { force: true }),
  }
}
