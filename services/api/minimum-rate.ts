// Cuts slow clients by a minimum rate, not by a total time. A large blob over a slow line may take hours, but a stalled
// stream holds memory, a descriptor and a socket without progress. One timer watches all streams of an edge. A stream
// is too slow if a whole window brought fewer bytes than the rate requires.

export interface RateGuardOptions {
  bytesPerSecondMin: number
  /** A pause of this length is always allowed. */
  windowMs: number
  /** For tests: milliseconds of a monotonic clock. */
  nowMs?: () => number
  /** For tests: the interval between checks. */
  tickMs?: number
}

export interface RateWatch extends Disposable {
  progress(bytes: number): void
}

export interface RateGuard extends Disposable {
  /** Watches one stream until the watch is disposed. `onTooSlow` is called at most once. */
  watch(onTooSlow: () => void): RateWatch
  /** Checks all streams now. Called by the timer. */
  tick(): void
}

interface Watched {
  bytes: number
  windowStartMs: number
  onTooSlow(): void
}

const TICK_MS = 1_000

export function createRateGuard(options: RateGuardOptions): RateGuard {
  const { bytesPerSecondMin, windowMs } = options
  const nowMs = options.nowMs ?? (() => performance.now())
  const bytesPerWindowMin = (bytesPerSecondMin * windowMs) / 1_000
  const watched = new Set<Watched>()

  function tick(): void {
    const now = nowMs()
    for (const stream of watched) {
      if (now - stream.windowStartMs < windowMs) continue
      if (stream.bytes < bytesPerWindowMin) {
        watched.delete(stream)
        stream.onTooSlow()
      } else {
        stream.bytes = 0
        stream.windowStartMs = now
      }
    }
  }

  const timer = setInterval(tick, options.tickMs ?? TICK_MS)
  timer.unref()

  return {
    tick,
    watch(onTooSlow) {
      const stream: Watched = { bytes: 0, windowStartMs: nowMs(), onTooSlow }
      watched.add(stream)
      return {
        progress: (bytes) => {
          stream.bytes += bytes
        },
        [Symbol.dispose]: () => {
          watched.delete(stream)
        },
      }
    },
    [Symbol.dispose]: () => clearInterval(timer),
  }
}
