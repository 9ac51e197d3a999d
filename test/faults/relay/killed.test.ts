// The sequencer under fire: every event once, gapless, in order, whatever dies.

import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { type LoggedEvent, outboxPending, readEvents } from '#shared/db/event-log.ts'
import { moveOnce } from '../../../services/relay/service.ts'
import { eventually } from '../../support/eventually.ts'
import { push, repositoryName, tags } from '../../support/push.ts'
import { testRegion } from '../../support/region.ts'

const KILLS = 50
const START = { epoch: 1, pos: 0 }

test('R6: 50 relays killed in mid-transaction, two at a time: nothing lost, doubled, skipped or reordered', async (t) => {
  const { region } = await testRegion(t)
  const directory = region.config.dataDir
  let kills = 0
  let stopping = false
  const killed = async () => {
    while (kills < KILLS) {
      const after = Math.floor(Math.random() * 3)
      const file = join(import.meta.dirname, '../../support/relay-node.ts')
      const child = fork(file, [region.databaseUrl, directory, String(after)])
      const [signal] = await new Promise<[NodeJS.Signals | null]>((done) =>
        child.once('exit', (_code, by) => done([by])),
      )
      assert.equal(signal, 'SIGKILL', 'it ended by its own kill')
      kills++
    }
  }
  const wanted = new Map<string, number>()
  const writer = async (number: number) => {
    for (let round = 0; !stopping; round++) {
      const repository = repositoryName(`team/app${(number + round) % 5}`)
      await push(region.db, repository, `${number}-${round}`, { tags: tags('latest') })
      wanted.set(repository, (wanted.get(repository) ?? 0) + 1)
    }
  }
  const writing = [0, 1, 2].map(writer)
  // What is rolled back after its outbox row was written must leave no number behind.
  const rollingBack = (async () => {
    while (!stopping) {
      const abandoned = new Error('abandoned')
      const attempt = region.db.transaction(async (transaction) => {
        await push(transaction, repositoryName('team/app0'), `abandoned-${Math.random()}`)
        throw abandoned
      })
      await assert.rejects(attempt, abandoned)
    }
  })()
  await Promise.all([killed(), killed()])
  stopping = true
  await Promise.all([...writing, rollingBack])
  // The last one killed may hold the lock until its connection is noticed to be gone.
  await eventually('the outbox to be empty', async () => {
    while ((await moveOnce(region)) > 0);
    return !(await outboxPending(region.db))
  })
  const events: LoggedEvent[] = []
  for (let after = START; ; ) {
    const page = await readEvents(region.db, { after, limit: 1_000 })
    const last = page.at(-1)
    if (last === undefined) break
    events.push(...page)
    after = { epoch: last.epoch, pos: last.pos }
  }
  t.diagnostic(`${kills} kills, ${events.length} events`)
  assert.deepEqual(
    events.map(({ pos }) => pos),
    events.map((_, index) => index + 1),
    'pos is gapless',
  )
  const seqs = Map.groupBy(events, ({ shard }) => shard)
  for (const [shard, rows] of seqs) {
    assert.deepEqual(
      rows.map(({ seq }) => seq),
      rows.map((_, index) => index + 1),
      `seq of shard ${shard} is gapless`,
    )
  }
  for (const [repository, count] of wanted) {
    const sets = events.filter((event) => event.repository === repository && event.type.includes('.tag.set.'))
    assert.equal(sets.length, count, `${repository}: every acknowledged push is there once`)
    const versions = sets.map(({ payload }) => BigInt((payload.version as { h: string }).h))
    assert.deepEqual(
      versions,
      versions.toSorted((a, b) => (a < b ? -1 : 1)),
      'in the order of the register',
    )
  }
})
