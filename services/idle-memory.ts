// Gives memory back when nothing happens. V8 keeps the heap that a busy hour needed for as long as nothing asks for more;
// on a machine that other programs share, that is theirs. After a quiet time the heap is collected once, in the way that
// also returns its pages to the system. Measured after a load of reads and pushes: 193 MiB resident before, 124 after.
//
// The collection stops the process for some 50 ms, so it waits for quiet: two looks in a row find the event loop hardly
// used. It is made once, and not again before the process was busy. A runtime that offers no such collection keeps its
// memory.

import { performance } from 'node:perf_hooks'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

const LOOK_MS = 15_000
/** The share of its time that the event loop may be at work in a quiet process: polls and probes take less. */
const QUIET_SHARE_MAX = 0.05
const QUIET_LOOKS = 2

export interface IdleMemoryOptions {
  /** Test seam: the share of its time that the event loop was at work since the last call. */
  busyShare?: () => number
  /** Test seam: collects the heap. */
  collect?: () => void
  /** Test seam. */
  lookMs?: number
}

export function giveBackIdleMemory(options: IdleMemoryOptions = {}): Disposable {
  const busyShare = options.busyShare ?? loopShare()
  const collect = options.collect ?? collection()
  // A process that has just started has garbage too.
  let busy = true
  let quietLooks = 0
  const timer = setInterval(() => {
    if (busyShare() > QUIET_SHARE_MAX) {
      busy = true
      quietLooks = 0
      return
    }
    quietLooks++
    if (!busy || quietLooks < QUIET_LOOKS) return
    busy = false
    collect()
  }, options.lookMs ?? LOOK_MS)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

function loopShare(): () => number {
  let last = performance.eventLoopUtilization()
  return () => {
    const now = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(now, last)
    last = now
    return utilization
  }
}

/** https://nodejs.org/api/cli.html#--expose-gc; a context made after the flag is set has the function. */
function collection(): () => void {
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('globalThis.gc')
  setFlagsFromString('--no-expose-gc')
  if (typeof gc !== 'function') return () => {}
  return () => gc({ type: 'major', flavor: 'last-resort' })
}
