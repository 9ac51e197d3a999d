// Whether this process can serve, from checks made every few seconds: who asks costs nothing, however often. A check
// writes to the store, so it must not be something that a client can make happen.
//
// A check that does not answer in time counts as failed and is not started a second time; once all checks together are
// older than they may be, the process is not ready whatever they said last.

import { startLoop } from '../loop.ts'
import type { Readiness } from './probe-server.ts'

const EVERY_MS = 5_000
const CHECK_MS_MAX = 5_000
/** A loop with jitter and checks that time out takes less than this for a round. */
const AGE_MS_MAX = 30_000

export interface ReadinessWatch extends AsyncDisposable {
  /** What the last round said. */
  now(): Readiness
  /**
   * Looks at one more part from now on. Resolves when its first verdict is known: that of `first`, where the part was
   * looked at just before, else of `check`.
   */
  add(part: string, checks: { check: () => Promise<unknown>; first?: () => Promise<unknown> }): Promise<void>
}

export interface ReadinessOptions {
  /** By the name of what is looked at; a check that rejects says why it is not ready. */
  readonly checks: Readonly<Record<string, () => Promise<unknown>>>
  /** Test seam: milliseconds between two rounds, and for one check. */
  readonly everyMs?: number
  readonly checkMsMax?: number
  /** Test seam: milliseconds of a monotonic clock. */
  readonly nowMs?: () => number
}

/** Resolves after the first round. */
export async function watchReadiness(options: ReadinessOptions): Promise<ReadinessWatch> {
  const { everyMs = EVERY_MS, checkMsMax = CHECK_MS_MAX, nowMs = () => performance.now() } = options
  const checks = new Map(Object.entries(options.checks))
  /** By part: why it is not ready. */
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
    // A round never rejects; a bug in it must not end the loop.
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
