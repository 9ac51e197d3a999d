// Slow clients are cut by a minimum rate, not by a total time: a large blob over a slow line may take hours, but a
// stream that stands still holds memory, a descriptor and a socket for nothing. One timer watches all streams of an
// edge; a stream is too slow when a whole window brought fewer bytes than the rate asks for.

export interface RateGuardOptions {
  bytesPerSecondMin: number
  /** A pause of this length is always allowed. */
  windowMs: number
  /** Test seam: milliseconds of a monotonic clock. */
  nowMs?: () => number
  /** Test seam: how often streams are looked at. */
  tickMs?: number
}

export interface RateWatch extends Disposable {
  progress(bytes: number): void
}

export interface RateGuard extends Disposable {
  /** Watches one stream until the watch is disposed; `onTooSlow` is called at most once. */
  watch(onTooSlow: () => void): RateWatch
  /** Looks at all streams now; the timer calls it. */
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
