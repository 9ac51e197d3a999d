// The epoch of the log. Raising it at any time loses no event, and a move that fails to log events leaves them in the
// outbox.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type LoggedEvent, moveOutbox, outboxPending, readEvents } from '#shared/db/event-log.ts'
import { one, type Queryable, statement } from '#shared/db/statement.ts'
import { startRelay } from '../../../services/relay/service.ts'
import { eventually } from '../../support/eventually.ts'
import { push, repositoryName, tags } from '../../support/push.ts'
import { testRegion } from '../../support/region.ts'

const raise = statement<never>('test-raise-epoch', 'update region set epoch = epoch + 1')
const left = statement<{ events: number }>('test-left', 'select count(*) as events from outbox')
/** The events of a push with three tags: one for the manifest, three for the tags, and one notification. */
const EVENTS_PER_PUSH = 5

async function everything(db: Queryable): Promise<LoggedEvent[]> {
  const events: LoggedEvent[] = []
  for (let after = { epoch: 1, pos: 0 }; ; ) {
    const page = await readEvents(db, { after, limit: 1_000 })
    const last = page.at(-1)
    if (last === undefined) return events
    events.push(...page)
    after = { epoch: last.epoch, pos: last.pos }
  }
}

test('raising the epoch between two moves loses no event of concurrent pushes', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  const relay = await startRelay(region)
  const pushOne = (round: number) =>
    push(db, repositoryName(`team/app${round % 5}`), `${round}`, { tags: tags('a', 'b', 'c') })
  let pushed = 0
  for (let epoch = 1; epoch <= 5; epoch++) {
    for (let n = 0; n < 5; n++) await pushOne(pushed++)
    await eventually('the relay to be between moves', async () => !(await outboxPending(db)))
    await db.rows(raise)
  }
  for (let n = 0; n < 5; n++) await pushOne(pushed++)
  await eventually('the outbox to be empty', async () => !(await outboxPending(db)))
  await relay[Symbol.asyncDispose]()
  const events = await everything(db)
  assert.equal(events.length, pushed * EVENTS_PER_PUSH)
  for (const [epoch, rows] of Map.groupBy(events, (event) => event.epoch)) {
    assert.deepEqual(
      rows.map(({ pos }) => pos),
      rows.map((_, index) => index + 1),
      `pos is gapless in epoch ${epoch}`,
    )
    for (const [shard, inShard] of Map.groupBy(rows, (event) => event.shard)) {
      assert.deepEqual(
        inShard.map(({ seq }) => seq),
        inShard.map((_, index) => index + 1),
        `seq of shard ${shard} is gapless in epoch ${epoch}`,
      )
    }
  }
})

test('a move that cannot log all events it took takes none', async (t) => {
  const { region } = await testRegion(t)
  const { db } = region
  await push(db, repositoryName('team/app'), 'one', { tags: tags('a', 'b', 'c') })
  await db.rows(
    statement(
      'test-drop-function',
      `create function drop_tag_events() returns trigger language plpgsql as
       $$ begin if new.type like '%.tag.set.%' then return null; end if; return new; end $$`,
    ),
  )
  await db.rows(
    statement(
      'test-drop-trigger',
      'create trigger drop_tag_events before insert on event_log for each row execute function drop_tag_events()',
    ),
  )
  const move = () => db.transaction((transaction) => moveOutbox(transaction, { limit: 500 }))
  await assert.rejects(move(), /5 .*2/)
  assert.equal((await one(db, left)).events, EVENTS_PER_PUSH)
  await db.rows(statement('test-drop-trigger-again', 'drop trigger drop_tag_events on event_log'))
  await move()
  assert.equal((await everything(db)).length, EVENTS_PER_PUSH)
})
