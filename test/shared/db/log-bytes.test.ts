// Pages of the log are bounded by the real size of their events: text that the table stores in a hundredth of its size,
// and content that grows by a third as base64. Events that do not fit come with the next page.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readEvents } from '#shared/db/event-log.ts'
import { readShards, readWholeEvents } from '#shared/db/shard-log.ts'
import { statement } from '#shared/db/statement.ts'
import { type EventSource, toCloudEvent } from '#shared/events/cloud-event.ts'
import { SHARDS } from '#shared/events/event-id.ts'
import type { Region } from '#shared/region.ts'
import { fillLog } from '../../support/log-writer.ts'
import { testRegion } from '../../support/region.ts'

/** Events as older releases logged them: in one part, and without a recorded size. */
const loggedByOlder = statement<never>(
  'test-logged-by-older',
  `update event_log set bytes = null, left_out = null,
     payload = case when left_out is null then payload else (payload - 'abridged') || left_out end`,
)
const START = { epoch: 1, pos: 0 }
const rendered = (event: EventSource) => Buffer.byteLength(JSON.stringify(toCloudEvent('eu', event)))
const total = (events: readonly EventSource[]) => events.reduce((sum, event) => sum + rendered(event), 0)

/** Small events, events that compress well, events with content, and one that is larger than any page. */
async function mixedLog(region: Region): Promise<number> {
  const content = Buffer.alloc(200_000, 'x')
  await fillLog(region, { count: 20 })
  await fillLog(region, { count: 20, filler: 100_000 })
  await fillLog(region, { count: 20, content })
  await fillLog(region, { count: 1, filler: 5_000_000 })
  await fillLog(region, { count: 19, filler: 300_000 })
  return 80
}

for (const older of [false, true]) {
  const rows = older ? 'rows that an older release logged' : 'rows'

  test(`pages of whole events take at most their bytes, or are one event: ${rows}`, async (t) => {
    const { region } = await testRegion(t)
    const { db } = region
    const count = await mixedLog(region)
    if (older) await db.rows(loggedByOlder)
    for (const bytesMax of older ? [4 * 1024 * 1024] : [100_000, 700_000, 4 * 1024 * 1024]) {
      let read = 0
      for (let after = START; ; ) {
        const page = await readWholeEvents(db, { after, limit: 500, bytesMax })
        const last = page.at(-1)
        if (last === undefined) break
        assert.ok(page.length === 1 || total(page) <= bytesMax, `${page.length} events, ${total(page)} bytes`)
        read += page.length
        after = { epoch: last.epoch, pos: last.pos }
      }
      assert.equal(read, count)
      const at = Array.from({ length: SHARDS }, (_, shard) => ({ shard, epoch: 1, seq: 0 }))
      for (read = 0; ; ) {
        const page = await readShards(db, { after: at, limitPerShard: 200, bytesMax })
        if (page.length === 0) break
        assert.ok(page.length === 1 || total(page) <= bytesMax, `${page.length} events, ${total(page)} bytes`)
        for (const { shard, epoch, seq } of page) {
          assert.equal(seq, (at[shard]?.seq ?? 0) + 1, 'a page is a beginning of each shard')
          at[shard] = { shard, epoch, seq }
        }
        read += page.length
      }
      assert.equal(read, count)
    }
  })

  test(`pages of the feed take at most half a MiB, whatever an event takes: ${rows}`, async (t) => {
    const { region } = await testRegion(t)
    const { db } = region
    const count = await mixedLog(region)
    if (older) await db.rows(loggedByOlder)
    let read = 0
    let abridged = 0
    for (let after = START; ; ) {
      const page = await readEvents(db, { after, limit: 1_000 })
      const last = page.at(-1)
      if (last === undefined) break
      assert.ok(total(page) <= 512 * 1024, `${page.length} events, ${total(page)} bytes`)
      read += page.length
      abridged += page.filter(({ payload }) => payload.abridged === true).length
      after = { epoch: last.epoch, pos: last.pos }
    }
    assert.equal(read, count)
    assert.equal(abridged, 20, 'those of 300 kB and 5 MB')
  })
}

test('what an event is measured to take is never less than what it takes, and not much more', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  await mixedLog(region)
  const measured = await db.rows(
    statement<{ pos: number; bytes: number }>(
      'test-measured',
      'select pos, bytes from event_log order by pos',
    ),
  )
  for (const { pos, bytes } of measured) {
    const [event] = await readWholeEvents(db, { after: { epoch: 1, pos: pos - 1 }, limit: 1, bytesMax: 1 })
    assert.ok(event)
    const { content: _content, ...rest } = event
    assert.ok(bytes >= rendered(rest) && bytes < rendered(rest) + 1_000, `${bytes} for ${rendered(rest)}`)
  }
})
