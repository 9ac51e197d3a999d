// A fair queue for expensive work. A few tasks run at a time, and waiting tasks take turns by origin.
//
// Each origin has its own line, and the lines are served round-robin. An origin that submits a thousand tasks delays
// another origin by one task per turn. Each line is bounded, and so is their total. When the total is full, the longest
// line drops its newest task if the new task's line is shorter. A refused task rejects with QueueFullError and never
// runs.

export class QueueFullError extends Error {
  override readonly name = 'QueueFullError'
  /** `own`: the origin's own line is full. `all`: the whole queue is full. */
  readonly full: 'own' | 'all'

  constructor(full: 'own' | 'all') {
    super('the queue is full')
    this.full = full
  }
}

export interface FairQueue {
  /** Runs the work when it is the origin's turn, and returns its result. @throws QueueFullError */
  run<T>(origin: string, work: () => Promise<T>): Promise<T>
}

interface Entry {
  start(): void
  refuse(error: QueueFullError): void
}

export function createFairQueue(bounds: {
  atOnce: number
  waitingMax: number
  waitingPerOriginMax: number
}): FairQueue {
  const { atOnce, waitingMax, waitingPerOriginMax } = bounds
  /** In the order of their turns. A line is never empty. */
  const lines = new Map<string, Entry[]>()
  let running = 0
  let waiting = 0

  function turn(origin: string): Promise<void> {
    const line = lines.get(origin) ?? []
    if (line.length >= waitingPerOriginMax) throw new QueueFullError('own')
    if (waiting >= waitingMax) makeRoom(line.length)
    return new Promise((start, refuse) => {
      line.push({ start, refuse })
      if (line.length === 1) lines.set(origin, line)
      waiting++
    })
  }

  /** Drops the newest task of the longest line, unless that line would become shorter than the new task's line. */
  function makeRoom(newcomersLine: number): void {
    const [origin, longest] = [...lines].reduce((most, next) =>
      next[1].length > most[1].length ? next : most,
    )
    if (longest.length <= newcomersLine + 1) throw new QueueFullError('all')
    longest.pop()?.refuse(new QueueFullError('all'))
    if (longest.length === 0) lines.delete(origin)
    waiting--
  }

  /** Passes the slot on directly. If it were released first, a new task could take it ahead of those that wait. */
  function handOver(): void {
    const [next] = lines
    if (next === undefined) {
      running--
      return
    }
    const [origin, line] = next
    const entry = line.shift()
    lines.delete(origin)
    if (line.length > 0) lines.set(origin, line)
    waiting--
    entry?.start()
  }

  return {
    async run(origin, work) {
      if (running < atOnce) running++
      else await turn(origin)
      try {
        return await work()
      } finally {
        handOver()
      }
    },
  }
}
