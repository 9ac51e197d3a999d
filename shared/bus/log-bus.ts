// The bus without Kafka: reads the origin's log directly, from the database or through the peer API. It serves regions
// that have no Kafka, and readers whose Kafka does not deliver. It stores no position: a subscription starts at its
// reader's.

import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { parseEventId, SHARDS, type ShardPosition } from '#shared/events/event-id.ts'
import type { LogPages } from '#shared/events/log-pages.ts'
import { pause } from '../pause.ts'
import { type Bus, BusError, type SubscribeOptions, type Subscription } from './bus.ts'
import { handOver } from './hand-over.ts'

const FAILURE_PAUSE_MS = 1_000

export interface LogBusOptions {
  readonly pages: LogPages
  /** Pause after an empty page. */
  readonly pollMs: number
}

export function createLogBus({ pages, pollMs }: LogBusOptions): Bus {
  /** Per group: the positions of its subscription. */
  const standing = new Map<string, Map<number, ShardPosition>>()
  return {
    // The log already has every event before it can be published.
    async publish() {},

    subscribe(options) {
      const at = new Map<number, ShardPosition>()
      standing.set(options.group, at)
      const following = follow({ pages, pollMs, at, options })
      return {
        async [Symbol.asyncDispose]() {
          await following[Symbol.asyncDispose]()
          if (standing.get(options.group) === at) standing.delete(options.group)
        },
      }
    },

    async lag(group) {
      const at = standing.get(group)
      if (at === undefined) throw new BusError(`the group ${group} does not read the log here`)
      return pages.lag([...at.values()])
    },

    async [Symbol.asyncDispose]() {},
  }
}

function follow(following: {
  pages: LogPages
  pollMs: number
  at: Map<number, ShardPosition>
  options: SubscribeOptions
}): Subscription {
  const { pages, pollMs, at, options } = following
  const stopping = new AbortController()
  const { signal } = stopping
  /** Shards whose batch is being handled. They are not read further; the others are. */
  const busy = new Map<number, Promise<void>>()

  async function take(shard: number, events: readonly CloudEvent[]): Promise<void> {
    const { onProblem } = options
    if (!(await handOver(() => options.handle({ shard, events }), { signal, onProblem }))) return
    const last = parseEventId(events.at(-1)?.id ?? '')
    if (last !== undefined) at.set(shard, { shard, epoch: last.epoch, seq: last.seq })
  }

  async function step(): Promise<boolean> {
    if (at.size < SHARDS) {
      for (let shard = 0; shard < SHARDS; shard++) at.set(shard, await options.position(shard))
    }
    // While a shard is being handled, the others are polled without waiting: waiting for them would hold that shard up.
    const free = [...at.values()].filter(({ shard }) => !busy.has(shard))
    if (free.length === 0) return false
    const { events, gone } = await pages.page(free, { mayWait: busy.size === 0, signal })
    for (const oldest of gone) {
      options.onProblem(new BusError(`the log no longer holds the next events of shard ${oldest.shard}`))
      // The numbers show the gap: a reader that stores its position sees what it missed.
      at.set(oldest.shard, oldest)
    }
    for (const [shard, batch] of Map.groupBy(events, ({ id }) => parseEventId(id)?.shard ?? 0)) {
      const taking = take(shard, batch).finally(() => busy.delete(shard))
      busy.set(shard, taking)
    }
    // Wait for a fast handler. A slow one holds up only its own shard.
    await Promise.race([Promise.all(busy.values()), pause(pollMs)])
    return events.length > 0
  }

  async function work(): Promise<void> {
    while (!signal.aborted) {
      let pauseMs = 0
      try {
        if (!(await step())) pauseMs = pollMs
      } catch (thrown) {
        if (signal.aborted) break
        pauseMs = FAILURE_PAUSE_MS
        options.onProblem(thrown)
      }
      if (pauseMs > 0) await pause(pauseMs, { signal })
    }
    await Promise.all(busy.values())
  }

  const working = work()
  return {
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await working
    },
  }
}
