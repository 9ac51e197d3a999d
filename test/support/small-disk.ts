// A real file system that fills up quickly: a tmpfs of a few megabytes. Mounting it requires root. Without root the
// test is skipped with a visible line, and under CI it fails.

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
  /** Returns the free space in bytes. */
  free(): Promise<number>
  /** Runs the work and returns the smallest free space seen, in bytes. Polls continuously. */
  leastFree(work: () => Promise<unknown>): Promise<number>
  /** Fills the disk except for `leaveBytes`. */
  fill(leaveBytes?: number): Promise<void>
  /** Releases the space taken by `fill`. */
  empty(): Promise<void>
}

/** Returns undefined if the test was skipped. The disk is unmounted after the test, once it is no longer in use. */
export async function smallDisk(t: TestContext, bytes: number): Promise<SmallDisk | undefined> {
  const directory = await mkdtemp(join(tmpdir(), 'portolan-disk-'))
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=0755`, 'tmpfs', directory])
  } catch (thrown) {
    await rm(directory, { recursive: true, force: true })
    if (process.env.CI === 'true') throw thrown
    t.skip('cannot mount a tmpfs here (requires root)')
    return undefined
  }
  const ballast = join(directory, 'ballast')
  const free = async () => {
    const { bavail, bsize } = await statfs(directory)
    return bavail * bsize
  }
  // Unmount lazily: hooks run in the order they were added, so a node that uses the disk stops later.
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
