// Decides when a process must stop: on SIGINT, SIGTERM or SIGHUP, or when the npm that started it exits. It also keeps
// the process alive until then. The timers of services do not keep a process alive, and during a restart of Postgres no
// connection is open.
//
// - One stop can arrive as several signals. Ctrl-C reaches both npm and this process, and npm forwards its own signal.
//   systemd signals the whole process group. A second signal therefore exits without a drain only if it arrives at
//   least one second after the first.
// - npm forwards SIGTERM and SIGINT to the shell that runs the script. The script uses `exec`, so this process replaces
//   the shell. A killed npm forwards nothing, and a process left behind would hold the port and the data directory when
//   the next one starts. A process therefore drains when its npm is gone. A process that npm did not start does not
//   check its parent, because it may be meant to outlive it (`setsid`, `disown`). npm itself may outlive its parent
//   too: `npm start &` keeps running after its shell exits.
// - SIGHUP (a closed terminal) terminates any Node process by default, npm included. This holds under `nohup` too,
//   because Node resets the signal to its default action when it starts. This process handles it and drains instead.

const SECOND_SIGNAL_MS_MIN = 1_000
const PARENT_LOOK_MS = 1_000

export interface StopRequest extends Disposable {
  /** Resolves when the process must drain. */
  readonly requested: Promise<void>
  request(): void
  /**
   * Until disposed, a stop request ends the process within `startMs`, even if it is still waiting for something
   * to start.
   */
  boundStart(startMs: number): Disposable
}

/** @param environment shows whether npm started this process */
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
    // The signal handlers stay installed, so that a signal during the drain does not terminate the process.
    [Symbol.dispose]: () => clearInterval(looking),
  }
}
