// A fair queue for expensive work: a few at a time, and those who wait take turns by where they come from.
//
// Each origin has a line; the lines are served in a circle, so an origin that sends a thousand delays another by one
// piece of work per turn. Each line and all lines together are bounded. When all are full, the longest line gives up
// its newest entry for a newcomer with a shorter one. Refused work rejects with QueueFullError and never ran.

export class QueueFullError extends Error {
  override readonly name = 'QueueFullError'
  /** `own`: the origin has as many in line as it may; `all`: the whole queue is full. */
  readonly full: 'own' | 'all'

  constructor(full: 'own' | 'all') {
    super('the queue is full')
    this.full = full
  }
}

export interface FairQueue {
  /** Runs the work when it is the origin's turn. @throws QueueFullError */
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
  /** In the order of their turns; a line is never empty. */
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

  /** Takes the newest entry of the longest line, if that leaves it no shorter than the newcomer's will be. */
  function makeRoom(newcomersLine: number): void {
    const [origin, longest] = [...lines].reduce((most, next) =>
      next[1].length > most[1].length ? next : most,
    )
    if (longest.length <= newcomersLine + 1) throw new QueueFullError('all')
    longest.pop()?.refuse(new QueueFullError('all'))
    if (longest.length === 0) lines.delete(origin)
    waiting--
  }

  /** The place goes from hand to hand: were it given back first, a newcomer could take it before those in line. */
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
