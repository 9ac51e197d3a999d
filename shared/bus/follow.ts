// Follows a log without gaps. The bus delivers events quickly, in-order.ts fills gaps from the log, and next-way.ts
// decides when to read the log because the bus has gone quiet. A bus that cannot even report its lag counts as quiet.

import { SHARDS } from '#shared/events/event-id.ts'
import type { LogPages } from '#shared/events/log-pages.ts'
import { startLoop } from '#shared/loop.ts'
import type { Bus, BusBatch, Subscription } from './bus.ts'
import { createInOrder, type InOrderOptions } from './in-order.ts'
import { firstWay, isQuiet, nextWay, type Way } from './next-way.ts'

export interface FollowOptions extends InOrderOptions {
  readonly group: string
  /** The fast way. undefined: there is only the log. */
  readonly bus: Bus | undefined
  /** The log, read through the bus interface. */
  readonly log: Bus
  readonly pages: LogPages
  onProblem(error: unknown): void
  /** Called when the way changes. */
  onWay?(way: Way, why: string): void
  /** How long a bus with undelivered events may deliver nothing. */
  readonly quietMs: number
  /** How long the log is read before the bus is tried again. */
  readonly retryBusMs: number
}

export interface Following extends AsyncDisposable {
  readonly way: Way
  /** How often a subscription was renewed because its bus was quiet. */
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

  /** Returns the number of pending events according to the log or, if the log cannot be reached, to the bus. */
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
