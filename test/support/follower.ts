// A reader for tests. It keeps the batches it receives and checks which events of a log it has, how often, and in which
// order.

import assert from 'node:assert/strict'
import type { Bus, BusBatch, Subscription } from '#shared/bus/bus.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { arrival, parseEventId, SHARDS, type ShardPosition } from '#shared/events/event-id.ts'

export interface TestReader {
  readonly batches: BusBatch[]
  readonly problems: unknown[]
  /** The number of distinct events received. */
  count(): number
  /** Asserts that each shard's events arrived from the first on, without gaps. Repeated events are allowed. */
  assertWhole(events: number): void
}

export interface TestReaderOptions {
  group: string
  /** Called before a batch is taken. May throw. */
  before?(batch: BusBatch): void | Promise<void>
  from?(shard: number): ShardPosition
  /** Keeps only the IDs, for large numbers of events. */
  idsOnly?: boolean
}

export function readWith(bus: Bus, options: TestReaderOptions): TestReader & Subscription {
  const reader = createReader()
  const subscription = bus.subscribe({
    group: options.group,
    position: async (shard) => options.from?.(shard) ?? { shard, epoch: 1, seq: 0 },
    async handle(batch) {
      await options.before?.(batch)
      const { shard, events } = batch
      reader.batches.push(
        options.idsOnly ? { shard, events: events.map(({ id }) => ({ id }) as CloudEvent) } : batch,
      )
    },
    onProblem: (problem) => reader.problems.push(problem),
  })
  return { ...reader, [Symbol.asyncDispose]: () => subscription[Symbol.asyncDispose]() }
}

export function createReader(): TestReader {
  const batches: BusBatch[] = []
  const known = new Set<string>()
  let looked = 0
  /** Called repeatedly while millions of events arrive, so it examines each batch only once. */
  const ids = () => {
    for (; looked < batches.length; looked++)
      for (const { id } of batches[looked]?.events ?? []) known.add(id)
    return known
  }
  return {
    batches,
    problems: [],
    count: () => ids().size,
    assertWhole(events) {
      const at = Array.from({ length: SHARDS }, (_, shard): ShardPosition => ({ shard, epoch: 1, seq: 0 }))
      for (const { shard, events: ofBatch } of batches) {
        for (const { id: text } of ofBatch) {
          const id = parseEventId(text)
          const here = at[shard]
          assert.ok(id !== undefined && here !== undefined && id.shard === shard, text)
          const what = arrival(here, id)
          assert.notEqual(what, 'gap', `${text} after ${JSON.stringify(here)}`)
          if (what === 'next') at[shard] = id
        }
      }
      assert.equal(ids().size, events)
    },
  }
}
