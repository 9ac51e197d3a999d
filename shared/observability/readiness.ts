// Tracks whether this process can serve. Checks run every few seconds, so a probe costs nothing, however often it
// comes. A check writes to the store, so clients must not be able to trigger it.
//
// A check that does not finish in time counts as failed and is not started again while it runs. If the last completed
// round is too old, the process is not ready, whatever that round reported.

import { startLoop } from '../loop.ts'
import type { Readiness } from './probe-server.ts'

const EVERY_MS = 5_000
const CHECK_MS_MAX = 5_000
/** A round with jitter and with checks that time out takes less than this. */
const AGE_MS_MAX = 30_000

export interface ReadinessWatch extends AsyncDisposable {
  /** Returns the result of the last round. */
  now(): Readiness
  /**
   * Adds a part to all later rounds. Resolves when its first result is known: that of `first` if it is given (the part
   * was checked just before), else that of `check`.
   */
  add(part: string, checks: { check: () => Promise<unknown>; first?: () => Promise<unknown> }): Promise<void>
}

export interface ReadinessOptions {
  /** By the name of the part. A check rejects with the reason why the part is not ready. */
  readonly checks: Readonly<Record<string, () => Promise<unknown>>>
  /** Test seam: milliseconds between two rounds, and the time limit of one check. */
  readonly everyMs?: number
  readonly checkMsMax?: number
  /** Test seam: milliseconds of a monotonic clock. */
  readonly nowMs?: () => number
}

/** Resolves after the first round. */
export async function watchReadiness(options: ReadinessOptions): Promise<ReadinessWatch> {
  const { everyMs = EVERY_MS, checkMsMax = CHECK_MS_MAX, nowMs = () => performance.now() } = options
  const checks = new Map(Object.entries(options.checks))
  /** Per part: why it is not ready. */
  const reasons = new Map<string, string>()
  const pending = new Map<string, Promise<unknown>>()
  let last: Readiness = { ready: false, reasons: [] }
  let checkedMs = 0

  async function reasonOf(part: string, check: () => Promise<unknown>): Promise<string | undefined> {
    const running = pending.get(part) ?? check()
    pending.set(part, running)
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${checkMsMax / 1_000} s`)), checkMsMax)
    })
    const settled = () => pending.delete(part)
    running.then(settled, settled)
    try {
      await Promise.race([running, late])
      return undefined
    } catch (thrown) {
      return `${part}: ${thrown instanceof Error ? thrown.message : 'failed'}`
    } finally {
      clearTimeout(timer)
    }
  }

  async function look(part: string, check: () => Promise<unknown>): Promise<void> {
    const reason = await reasonOf(part, check)
    if (reason === undefined) reasons.delete(part)
    else reasons.set(part, reason)
  }

  function tell(): void {
    const found = [...checks.keys()].map((part) => reasons.get(part)).filter((reason) => reason !== undefined)
    last = { ready: found.length === 0, reasons: found }
  }

  async function round(): Promise<void> {
    await Promise.all([...checks].map(([part, check]) => look(part, check)))
    tell()
    checkedMs = nowMs()
  }

  await round()
  const loop = startLoop({
    everyMs,
    run: round,
    // A round never rejects. A bug in it must not end the loop.
    onError: (error) => {
      last = { ready: false, reasons: [error instanceof Error ? error.message : 'failed'] }
    },
  })
  return {
    now() {
      if (nowMs() - checkedMs <= AGE_MS_MAX) return last
      return { ready: false, reasons: [...last.reasons, 'the last check is too old'] }
    },
    async add(part, { check, first = check }) {
      await look(part, first)
      checks.set(part, check)
      tell()
    },
    [Symbol.asyncDispose]: () => loop[Symbol.asyncDispose](),
  }
}
