// tests: shared/db/pull-events.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { statement } from '#shared/db/statement.ts'
import { createPullCounter } from '#shared/registry/pull-counter.ts'
import { IMAGE, sha256 } from '../../support/image.ts'
import { repositoryName, tags } from '../../support/push.ts'
import { testRegion } from '../../support/region.ts'

const pull = (name: string, tag?: string) => ({
  repository: repositoryName(name),
  digest: sha256(name),
  mediaType: IMAGE,
  size: 7,
  tag: tag === undefined ? undefined : tags(tag)[0],
})

const rows = statement<{ repository: string; payload: Record<string, unknown> }>(
  'test-outbox',
  'select repository, payload from outbox order by id',
)

test('many pulls of an image are one event with their number', async (t) => {
  const { region } = await testRegion(t)
  let clock = 0
  const counter = createPullCounter(() => new Date(clock))
  for (let n = 0; n < 500; n++) counter.count(pull('a/b', 'v1'))
  counter.count(pull('a/b'))
  counter.count(pull('a/c', 'v1'))
  clock = 10_000
  assert.equal(await counter.write(region.db, 'me'), 3)
  assert.equal(await counter.write(region.db, 'me'), 0)
  const written = await region.db.rows(rows)
  assert.deepEqual(
    written.map(({ repository, payload }) => [repository, payload.tag, payload.count]),
    [
      ['a/b', 'v1', 500],
      ['a/b', undefined, 1],
      ['a/c', 'v1', 1],
    ],
  )
  assert.equal(written[0]?.payload.from, '1970-01-01T00:00:00.000Z')
  assert.equal(written[0]?.payload.until, '1970-01-01T00:00:10.000Z')
})

test('D12: however many images are pulled, what is kept and written is bounded', async (t) => {
  const { region } = await testRegion(t)
  const counter = createPullCounter()
  for (let n = 0; n < 5_000; n++) counter.count(pull(`a/r${n}`))
  assert.equal(counter.dropped, 4_000)
  assert.equal(await counter.write(region.db, 'me'), 1_000)
  assert.equal((await region.db.rows(rows)).length, 1_000)
})

test('what could not be written is counted on', async (t) => {
  const { region } = await testRegion(t)
  const counter = createPullCounter()
  counter.count(pull('a/b'))
  const failing = counter.write({ rows: () => Promise.reject(new Error('away')) }, 'me')
  counter.count(pull('a/b'))
  counter.count(pull('a/c'))
  await assert.rejects(failing, /away/)
  await counter.write(region.db, 'me')
  assert.deepEqual(
    (await region.db.rows(rows)).map(({ payload }) => payload.count),
    [2, 1],
  )
})
