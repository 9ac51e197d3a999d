// When a process is to stop: SIGINT, SIGTERM or SIGHUP, or the end of the npm that started it. It also keeps the process alive until
// then: services wait on timers that hold nothing, and a Postgres that restarts leaves no connection open for a moment.
//
// - One stop can arrive as several signals: Ctrl-C reaches npm and this process, and npm passes its own on; systemd signals
//   the whole group. So a second signal ends the process without a drain only if it comes a second after the first.
// - npm passes SIGTERM and SIGINT on to the shell that runs the script, so the script `exec`s: the shell becomes this process.
//   An npm that is killed passes nothing on. What it left would keep the port and the data directory from the next
//   start, so a process whose npm is gone drains. A process that npm did not start does not look: it may well be meant to
//   outlive whoever started it (`setsid`, `disown`), as npm itself may: `npm start &` goes on when its shell has ended.
// - SIGHUP, a terminal that was closed, ends every Node process, npm included, also under `nohup`: Node sets the signal back
//   to its default when it starts. So it drains, instead of ending in the middle.

const SECOND_SIGNAL_MS_MIN = 1_000
const PARENT_LOOK_MS = 1_000

export interface StopRequest extends Disposable {
  /** Resolves when the process is to drain. */
  readonly requested: Promise<void>
  request(): void
  /** Until disposed: a process that is told to stop ends within this time, even if it still waits for something to start. */
  boundStart(startMs: number): Disposable
}

/** @param environment tells whether npm started this process */
export function stopRequest(environment: Readonly<Record<string, string | undefined>>): StopRequest {
  const { promise, resolve } = Promise.withResolvers<void>()
  let firstAtMs: number | undefined
  const onSignal = () => {
    const nowMs = performance.now()
    firstAtMs ??= nowMs
    if (nowMs - firstAtMs >= SECOND_SIGNAL_MS_MIN) process.exit(130)
    resolve()
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal)
  const parent = process.ppid
  const byNpm = environment.npm_lifecycle_event !== undefined && parent > 1
  const looking = setInterval(() => {
    if (byNpm && process.ppid !== parent) resolve()
  }, PARENT_LOOK_MS)
  return {
    requested: promise,
    request: resolve,
    boundStart(startMs) {
      let late: NodeJS.Timeout | undefined
      let started = false
      void promise.then(() => {
        if (!started) late = setTimeout(() => process.exit(1), startMs)
      })
      return {
        [Symbol.dispose]() {
          started = true
          clearTimeout(late)
        },
      }
    },
    // The handlers stay: a signal during the drain must not end the process by itself.
    [Symbol.dispose]: () => clearInterval(looking),
  }
}
