// A bus that simulates what Kafka may do to events: lose, repeat, reorder or stall them. It is built on the log reader.

import type { Bus, SubscribeOptions } from '#shared/bus/bus.ts'

export interface Unruly {
  /** Probability from 0 to 1. */
  drop?: number
  repeat?: number
  /** Delivers some batches in reverse order. */
  shuffle?: boolean
  random(): number
}

export interface UnrulyBus extends Bus {
  /** While true, delivers nothing, like a stalled consumer. */
  quiet: boolean
  readonly subscriptions: number
}

export function createUnrulyBus(log: Bus, unruly: Unruly): UnrulyBus {
  const { drop = 0, repeat = 0, shuffle = false, random } = unruly
  const bus: UnrulyBus & { subscriptions: number } = {
    quiet: false,
    subscriptions: 0,
    publish: (events) => log.publish(events),
    lag: (group) => log.lag(group),
    subscribe(options: SubscribeOptions) {
      bus.subscriptions++
      return log.subscribe({
        ...options,
        // Always starts from the beginning, so earlier events are delivered again.
        position: async (shard) => ({ shard, epoch: 1, seq: 0 }),
        async handle({ shard, events }) {
          if (bus.quiet) return
          let handed = events
            .filter(() => random() >= drop)
            .flatMap((event) => (random() < repeat ? [event, event] : [event]))
          if (shuffle && random() < 0.3) handed = handed.toReversed()
          for (let from = 0; from < handed.length; ) {
            const size = 1 + Math.floor(random() * 5)
            const some = handed.slice(from, from + size)
            from += random() < repeat ? Math.ceil(size / 2) : size
            if (some.length > 0) await options.handle({ shard, events: some })
          }
        },
      })
    },
    [Symbol.asyncDispose]: () => log[Symbol.asyncDispose](),
  }
  return bus
}
