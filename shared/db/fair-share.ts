// A share of the pool for each repository. If a repository's writes wait for a lock, they wait in the database, and
// each holds a connection while it waits. At most three quarters of the pool may be used by one repository. Its other
// writes wait in a queue for that repository, so the rest of the pool serves all others. A write that waits too long,
// or finds the queue full, is refused and told to try again.

/** failures.ts recognises it as passing. */
export class PoolBusyError extends Error {
  override readonly name = 'PoolBusyError'
}

export interface FairShare {
  /**
   * Runs the work when its repository has room. Work without a repository runs at once.
   * @throws PoolBusyError
   */
  run<T>(repository: unknown, work: () => Promise<T>): Promise<T>
}

/** Maximum queue length for one repository. More would wait longer than any client does. */
const WAITING_MAX = 1_000

interface Line {
  running: number
  readonly waiting: Set<() => void>
}

export function createFairShare(options: { connections: number; waitMs: number }): FairShare {
  const { connections, waitMs } = options
  const atOnce = Math.max(1, connections - Math.ceil(connections / 4))
  const lines = new Map<string, Line>()

  async function enter(line: Line): Promise<void> {
    if (line.running < atOnce) {
      line.running++
      return
    }
    if (line.waiting.size >= WAITING_MAX)
      throw new PoolBusyError('too many writes of this repository are waiting')
    await new Promise<void>((resolve, reject) => {
      const late = setTimeout(() => {
        line.waiting.delete(called)
        reject(new PoolBusyError('the writes of this repository that came before are still waiting'))
      }, waitMs)
      const called = () => {
        clearTimeout(late)
        resolve()
      }
      line.waiting.add(called)
    })
  }

  function leave(repository: string, line: Line): void {
    const [next] = line.waiting
    if (next === undefined) {
      line.running--
      if (line.running === 0) lines.delete(repository)
      return
    }
    // The place goes to the next waiting write.
    line.waiting.delete(next)
    next()
  }

  return {
    async run(repository, work) {
      if (typeof repository !== 'string') return work()
      let line = lines.get(repository)
      if (line === undefined) {
        line = { running: 0, waiting: new Set() }
        lines.set(repository, line)
      }
      await enter(line)
      try {
        return await work()
      } finally {
        leave(repository, line)
      }
    },
  }
}
