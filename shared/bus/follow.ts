// Follows a log without a hole: the bus brings events quickly, in-order.ts makes them whole by reading the log, and
// next-way.ts decides when the log is read instead of a bus that keeps quiet. A bus that cannot even be asked for its lag
// counts as quiet.

import { SHARDS } from '#shared/events/event-id.ts'
import type { LogPages } from '#shared/events/log-pages.ts'
import { startLoop } from '#shared/loop.ts'
import type { Bus, BusBatch, Subscription } from './bus.ts'
import { createInOrder, type InOrderOptions } from './in-order.ts'
import { firstWay, isQuiet, nextWay, type Way } from './next-way.ts'

export interface FollowOptions extends InOrderOptions {
  readonly group: string
  /** The fast way; undefined: there is only the log. */
  readonly bus: Bus | undefined
  /** The log, as a bus. */
  readonly log: Bus
  readonly pages: LogPages
  onProblem(error: unknown): void
  /** The way has changed. */
  onWay?(way: Way, why: string): void
  /** How long a bus may keep quiet while it has something. */
  readonly quietMs: number
  /** How long the log is read before the bus is tried again. */
  readonly retryBusMs: number
}

export interface Following extends AsyncDisposable {
  readonly way: Way
  /** How often a subscription was renewed because its bus kept quiet. */
  readonly rebuilds: number
}

export function followLog(options: FollowOptions): Following {
  const { bus, log, pages, group, onProblem } = options
  const inOrder = createInOrder(options)
  const counts = { brought: 0, underWay: 0 }
  let state = firstWay({ nowMs: performance.now(), hasBus: bus !== undefined })
  let subscription = subscribe()

  function subscribe(): Subscription {
    const from = state.way === 'bus' && bus !== undefined ? bus : log
    return from.subscribe({ group, position: inOrder.position, handle, onProblem })
  }

  async function handle(batch: BusBatch): Promise<void> {
    counts.brought++
    counts.underWay++
    try {
      await inOrder.take(batch)
    } finally {
      counts.underWay--
    }
  }

  async function look(): Promise<void> {
    const lag = isQuiet(state, counts) ? await lagNow() : 0
    const seen = { ...counts, nowMs: performance.now(), hasBus: bus !== undefined, lag }
    const { way } = state
    const decision = nextWay(state, seen, options)
    if (decision.renew) await subscription[Symbol.asyncDispose]()
    state = decision.state
    if (!decision.renew) return
    if (state.way !== way) options.onWay?.(state.way, decision.why)
    subscription = subscribe()
  }

  /** Events still to come by the log's account or, if the log is out of reach, by the bus's. */
  async function lagNow(): Promise<number> {
    const all = await Promise.all(Array.from({ length: SHARDS }, (_, shard) => inOrder.position(shard)))
    return pages.lag(all).catch(() => bus?.lag(group) ?? 0)
  }

  const looking = startLoop({ everyMs: options.quietMs, run: look, onError: onProblem })
  return {
    get way() {
      return state.way
    },
    get rebuilds() {
      return state.rebuilds
    },
    async [Symbol.asyncDispose]() {
      await looking[Symbol.asyncDispose]()
      await subscription[Symbol.asyncDispose]()
    },
  }
}
