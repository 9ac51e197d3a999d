// The region's own log by shards, for readers in this region and, through /peer/v1/log, in other regions.

import { readShards, shardStates } from '#shared/db/shard-log.ts'
import type { Queryable } from '#shared/db/statement.ts'
import { toCloudEvent } from '#shared/events/cloud-event.ts'
import type { LogPages } from '#shared/events/log-pages.ts'

const PER_SHARD_MAX = 200
const BYTES_MAX = 4 * 1024 * 1024

export function ownLogPages(region: { readonly db: Queryable; readonly name: string }): LogPages {
  const { db, name } = region
  return {
    async page(after) {
      // Read before the rows. Events that are trimmed between the two reads show as a hole, and the reader asks for
      // them again.
      const states = await shardStates(db, after)
      const gone = states.filter(({ missed }) => missed).map(({ oldest }) => oldest)
      const behind = new Set(
        states.filter(({ missed, behind }) => !missed && behind > 0).map(({ shard }) => shard),
      )
      if (behind.size === 0) return { events: [], gone }
      const rows = await readShards(db, {
        after: after.filter(({ shard }) => behind.has(shard)),
        limitPerShard: PER_SHARD_MAX,
        bytesMax: BYTES_MAX,
      })
      return { events: rows.map((row) => toCloudEvent(name, row)), gone }
    },
    async lag(after) {
      const states = await shardStates(db, after)
      return states.reduce((sum, { behind }) => sum + behind, 0)
    },
  }
}
