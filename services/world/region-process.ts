// A region of the world: a child process that runs all services with everything embedded. It reports when it is ready, and
// drains when this process ends or dies. If it ends by itself, it is restarted after 10 s.

import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { OperatorError } from '#shared/errors.ts'
import { pause } from '#shared/pause.ts'

const RESTART_DELAY_MS = 10_000
const START_TIMEOUT_MS = 120_000

export interface RegionProcessOptions {
  readonly name: string
  readonly environment: Readonly<Record<string, string | undefined>>
  /** The process ended by itself and will be restarted. */
  onEnd(how: string): void
  /** The region is ready, for the first time or after a restart. */
  onReady(pid: number): void
  onProblem(error: unknown): void
  /** Test seam. */
  readonly restartDelayMs?: number
}

export interface RegionProcess extends AsyncDisposable {
  /** Of the running process; undefined between two of them. */
  readonly pid: number | undefined
  /** The first start. Rejects with an OperatorError if the region does not become ready. */
  readonly ready: Promise<void>
}

export function startRegionProcess(options: RegionProcessOptions): RegionProcess {
  const stopping = new AbortController()
  let child: ChildProcess | undefined
  let served = false

  async function start(): Promise<void> {
    const started = fork(fileURLToPath(new URL('../main.ts', import.meta.url)), ['all'], {
      env: options.environment,
      // In its own process group: Ctrl-C reaches only the parent, which drains the regions.
      detached: true,
    })
    child = started
    started.once('exit', (code, signal) => {
      child = undefined
      if (stopping.signal.aborted || !served) return
      options.onEnd(signal ?? `exit code ${code}`)
      void again()
    })
    await becomesReady(started, options.name)
    served = true
    options.onReady(started.pid ?? 0)
  }

  async function again(): Promise<void> {
    const delayMs = options.restartDelayMs ?? RESTART_DELAY_MS
    await pause(delayMs, { signal: stopping.signal, ref: true })
    if (!stopping.signal.aborted) await start().catch(options.onProblem)
  }

  return {
    get pid() {
      return child?.pid
    },
    ready: start(),
    async [Symbol.asyncDispose]() {
      stopping.abort()
      if (child === undefined) return
      const ended = new Promise((done) => child?.once('exit', done))
      child.kill('SIGTERM')
      await ended
    },
  }
}

function becomesReady(child: ChildProcess, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (sentence: string) => {
      clearTimeout(late)
      reject(new OperatorError(sentence))
    }
    const late = setTimeout(() => {
      child.kill('SIGKILL')
      fail(`The region ${name} was not ready within ${START_TIMEOUT_MS / 1_000} s.`)
    }, START_TIMEOUT_MS)
    child.once('error', (error) => fail(`The region ${name} could not be started: ${error.message}.`))
    child.once('exit', () => fail(`The region ${name} ended before it was ready; what it said is above.`))
    child.on('message', ({ kind }: { kind?: unknown }) => {
      if (kind !== 'ready') return
      clearTimeout(late)
      resolve()
    })
  })
}
