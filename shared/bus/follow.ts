// Follows a log without a hole: the bus brings events quickly, their numbers tell what it repeated or left out, and what it
// left out or abridged is read from the log itself (rule R8). Whoever follows gets every event once and in order, shard by shard, as
// long as its own positions are kept in the transaction that applies the events.
//
// A watchdog looks after a bus that keeps quiet although it has something to deliver: its subscription is built anew,
// and the third time in a row the log is read instead, until the bus is tried again later. A bus that cannot even be
// asked counts as quiet.

import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { arrival, parseEventId, SHARDS, type ShardPosition } from '#shared/events/event-id.ts'
import type { LogPages } from '#shared/events/log-pages.ts'
import { startLoop } from '#shared/loop.ts'
import { type Bus, type BusBatch, BusError, type Subscription } from './bus.ts'

const REBUILDS_MAX = 2
const RESTARTS_MAX = 3

export interface FollowOptions {
  readonly group: string
  /** The fast way; undefined: there is only the log. */
  readonly bus: Bus | undefined
  /** The log, as a bus. */
  readonly log: Bus
  readonly pages: LogPages
  /** Where this reader stands, from its own records. */
  position(shard: number): Promise<ShardPosition>
  /**
   * Takes events that come right after the position, and moves the position in the same transaction.
   * When it rejects, the same events come again.
   */
  handle(batch: BusBatch): Promise<void>
  /** The log no longer holds what comes next: says from where to go on, after having made up for it. */
  onGone(oldest: ShardPosition): Promise<ShardPosition>
  onProblem(error: unknown): void
  /** A change of the way. */
  onWay?(way: 'bus' | 'log', why: string): void
  /** How long a bus may keep quiet while it has something. */
  readonly quietMs: number
  /** How long the log is read before the bus is tried again. */
  readonly retryBusMs: number
}

export interface Following extends AsyncDisposable {
  readonly way: 'bus' | 'log'
  /** How often a subscription was built anew. */
  readonly rebuilds: number
}

export function followLog(options: FollowOptions): Following {
  const { bus, log, pages, group, onProblem } = options
  const positions = new Map<number, ShardPosition>()
  /** One batch of a shard at a time, whichever way it came. */
  const turns = new Map<number, Promise<void>>()
  let way: 'bus' | 'log' = bus === undefined ? 'log' : 'bus'
  let rebuilds = 0
  let strikes = 0
  /** Batches the subscription brought, taken or not, and how many of them are with the handler. */
  let brought = 0
  let underWay = 0
  let broughtBefore = 0
  let watched = false
  let wayChangedAtMs = performance.now()
  let subscription: Subscription = subscribe()

  function subscribe(): Subscription {
    const from = way === 'bus' && bus !== undefined ? bus : log
    return from.subscribe({ group, position, handle, onProblem })
  }

  async function position(shard: number): Promise<ShardPosition> {
    const known = positions.get(shard) ?? (await options.position(shard))
    positions.set(shard, known)
    return known
  }

  function handle(batch: BusBatch): Promise<void> {
    brought++
    underWay++
    const turn = (turns.get(batch.shard) ?? Promise.resolve())
      .then(() => inOrder(batch))
      .finally(() => {
        underWay--
      })
    turns.set(
      batch.shard,
      turn.catch(() => {}),
    )
    return turn
  }

  async function inOrder({ shard, events }: BusBatch): Promise<void> {
    let at = await position(shard)
    let next: CloudEvent[] = []
    const flush = async () => {
      if (next.length > 0) at = await taken(shard, next)
      next = []
    }
    for (const event of events) {
      const id = parseEventId(event.id)
      if (id === undefined || id.shard !== shard) continue
      const before = next.at(-1)
      const upTo = before === undefined ? at : (parseEventId(before.id) ?? at)
      const what = arrival(upTo, id)
      // An abridged event is a hole with a number: it is whole in the log.
      if (what === 'next' && event.data.abridged !== true) next.push(event)
      else if (what !== 'repeated') {
        await flush()
        at = await fill(shard, id)
        // The log had this one too, or it is not of this log.
      }
    }
    await flush()
  }

  /** Reads the log until it is past `until` or at its end. */
  async function fill(shard: number, until: ShardPosition): Promise<ShardPosition> {
    let restarts = 0
    for (let at = await position(shard); ; ) {
      const { events, gone } = await pages.page([at])
      const [oldest] = gone
      if (oldest !== undefined) {
        if (++restarts > RESTARTS_MAX) throw new BusError(`shard ${shard} is trimmed faster than it is read`)
        at = await options.onGone(oldest)
        positions.set(shard, at)
        continue
      }
      if (events.length > 0) at = await taken(shard, events)
      if (events.length === 0 || arrival(at, until) === 'repeated') return at
    }
  }

  async function taken(shard: number, events: readonly CloudEvent[]): Promise<ShardPosition> {
    try {
      await options.handle({ shard, events })
    } catch (thrown) {
      // Whether it was applied is only known where the position is kept.
      positions.delete(shard)
      throw thrown
    }
    const last = parseEventId(events.at(-1)?.id ?? '')
    const at = last === undefined ? await position(shard) : { shard, epoch: last.epoch, seq: last.seq }
    positions.set(shard, at)
    return at
  }

  async function renew(to: 'bus' | 'log', why: string): Promise<void> {
    await subscription[Symbol.asyncDispose]()
    if (to !== way) {
      wayChangedAtMs = performance.now()
      options.onWay?.(to, why)
    }
    way = to
    subscription = subscribe()
  }

  async function watch(): Promise<void> {
    // The first look is at the start, when nothing could have come.
    if (!watched) {
      watched = true
      return
    }
    if (way === 'log') {
      if (bus !== undefined && performance.now() - wayChangedAtMs > options.retryBusMs) {
        strikes = 0
        await renew('bus', 'it is tried again')
      }
      return
    }
    const delivering = brought > broughtBefore || underWay > 0
    broughtBefore = brought
    if (delivering || (await lag()) === 0) {
      strikes = 0
      return
    }
    strikes++
    if (strikes > REBUILDS_MAX) {
      await renew('log', `it delivered nothing for ${strikes} times ${options.quietMs} ms`)
      return
    }
    rebuilds++
    await renew('bus', 'it delivers nothing')
  }

  /** What is still to come by the log's account, or where the log is out of reach by the bus's. */
  async function lag(): Promise<number> {
    const all = await Promise.all(Array.from({ length: SHARDS }, (_, shard) => position(shard)))
    return pages.lag(all).catch(() => bus?.lag(group) ?? 0)
  }

  const watching = startLoop({ everyMs: options.quietMs, run: watch, onError: onProblem })
  return {
    get way() {
      return way
    },
    get rebuilds() {
      return rebuilds
    },
    async [Symbol.asyncDispose]() {
      await watching[Symbol.asyncDispose]()
      await subscription[Symbol.asyncDispose]()
    },
  }
}
