// Kills the sequencer repeatedly. Every event is logged once, in order and without gaps.

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

test('R6: killing 50 relays in a transaction, two at a time, loses, repeats or reorders nothing', async (t) => {
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
      assert.equal(signal, 'SIGKILL', 'the relay killed itself')
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
  // A transaction that rolls back after its outbox row was written must leave no gap in the numbers.
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
  // The last killed relay may hold the lock until the server notices that its connection is gone.
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
    'pos has no gaps',
  )
  const seqs = Map.groupBy(events, ({ shard }) => shard)
  for (const [shard, rows] of seqs) {
    assert.deepEqual(
      rows.map(({ seq }) => seq),
      rows.map((_, index) => index + 1),
      `seq of shard ${shard} has no gaps`,
    )
  }
  for (const [repository, count] of wanted) {
    const sets = events.filter((event) => event.repository === repository && event.type.includes('.tag.set.'))
    assert.equal(sets.length, count, `${repository}: every acknowledged push is logged once`)
    const versions = sets.map(({ payload }) => BigInt((payload.version as { h: string }).h))
    assert.deepEqual(
      versions,
      versions.toSorted((a, b) => (a < b ? -1 : 1)),
      'in register order',
    )
  }
})
