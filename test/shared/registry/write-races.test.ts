// What racing writers get: conditions hold at the moment of the write, and content that was there throughout is found.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { repositoryExists } from '#shared/db/repositories.ts'
import type { WriteConditions } from '#shared/oci/conditional.ts'
import type { Tag } from '#shared/oci/reference.ts'
import { findManifest } from '#shared/registry/pull.ts'
import { INDEX, manifestOf, type TestManifest } from '../../support/image.ts'
import { repositoryName, tags } from '../../support/push.ts'
import { testRegion } from '../../support/region.ts'
import { type Answer, writersOf } from '../../support/writers.ts'

const ROUNDS = 60
const RACERS = 6
const DELETES = 1_013

const name = repositoryName('team/app')
const [v1] = tags('v1') as [Tag]
const absent: WriteConditions = { ifNoneMatch: ['*'] }
const present: WriteConditions = { ifMatch: ['*'] }

const manifest = (text: string): TestManifest => manifestOf(INDEX, { manifests: [], annotations: { text } })

async function setUp(t: TestContext) {
  const { region } = await testRegion(t)
  const pointsTo = async (tag: Tag) =>
    (await findManifest(region, { repository: name, reference: { kind: 'tag', tag } }))?.digest
  return { region, writers: writersOf(region), pointsTo }
}

const race = (racer: (index: number) => Promise<Answer>) =>
  Promise.all(Array.from({ length: RACERS }, (_, index) => racer(index)))

const winners = (answers: readonly Answer[]) => answers.filter((answer) => answer === 'ok').length

test('If-None-Match: * lets exactly one of the racing creators of a tag have it', async (t) => {
  const { writers, pointsTo } = await setUp(t)
  const counts: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const [tag] = tags(`round-${round}`) as [Tag]
    const manifests = Array.from({ length: RACERS }, (_, index) => manifest(`${round} ${index}`))
    const answers = await race((index) =>
      writers.push({ repository: name, manifest: manifests[index] as TestManifest, tag, conditions: absent }),
    )
    counts.push(winners(answers))
    assert.equal(await pointsTo(tag), manifests[answers.indexOf('ok')]?.digest, 'the winner has the tag')
  }
  assert.deepEqual(counts, Array(ROUNDS).fill(1))
})

test('If-None-Match: * also holds where a tombstone of the tag is there', async (t) => {
  const { writers } = await setUp(t)
  const counts: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    await writers.push({ repository: name, manifest: manifest(`${round}`), tag: v1 })
    await writers.deleteTag(name, v1)
    counts.push(
      winners(
        await race((index) =>
          writers.push({
            repository: name,
            manifest: manifest(`${round} ${index}`),
            tag: v1,
            conditions: absent,
          }),
        ),
      ),
    )
  }
  assert.deepEqual(counts, Array(ROUNDS).fill(1))
})

test('a push by digest with several tags and If-None-Match: * takes all of them or none', async (t) => {
  const { writers, pointsTo } = await setUp(t)
  for (let round = 0; round < ROUNDS; round++) {
    const names = tags(`a-${round}`, `b-${round}`, `c-${round}`)
    const [a, b, c] = names as [Tag, Tag, Tag]
    const overlapping = [
      [a, b],
      [b, a],
      [b, c],
      [c, b],
      [a, c],
      [c, a],
    ]
    const manifests = overlapping.map((_, index) => manifest(`${round} ${index}`))
    const answers = await race((index) =>
      writers.push({
        repository: name,
        manifest: manifests[index] as TestManifest,
        tags: overlapping[index] as Tag[],
        conditions: absent,
      }),
    )
    assert.equal(winners(answers), 1, 'any two of them want one tag in common')
    const winner = answers.indexOf('ok')
    const has = await Promise.all(names.map(pointsTo))
    assert.deepEqual(
      has,
      names.map((tag) => (overlapping[winner]?.includes(tag) ? manifests[winner]?.digest : undefined)),
    )
  }
})

test('If-None-Match: * lets exactly one of the racing creators of a digest have it', async (t) => {
  const { writers } = await setUp(t)
  const counts: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const same = manifest(`${round}`)
    counts.push(
      winners(await race(() => writers.push({ repository: name, manifest: same, conditions: absent }))),
    )
  }
  assert.deepEqual(counts, Array(ROUNDS).fill(1))
})

test('If-Match: * never fails for a tag that only moves', async (t) => {
  const { writers } = await setUp(t)
  await writers.push({ repository: name, manifest: manifest('first'), tag: v1 })
  const counts: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    counts.push(
      winners(
        await race((index) =>
          writers.push({
            repository: name,
            manifest: manifest(`${round} ${index}`),
            tag: v1,
            conditions: index < RACERS / 2 ? present : {},
          }),
        ),
      ),
    )
  }
  assert.deepEqual(counts, Array(ROUNDS).fill(RACERS))
})

test('If-Match: <digest> has exactly one winner for each digest that the tag had', async (t) => {
  const { writers, pointsTo } = await setUp(t)
  await writers.push({ repository: name, manifest: manifest('first'), tag: v1 })
  const counts: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const conditions = { ifMatch: [(await pointsTo(v1)) ?? ''] }
    counts.push(
      winners(
        await race((index) =>
          writers.push({ repository: name, manifest: manifest(`${round} ${index}`), tag: v1, conditions }),
        ),
      ),
    )
  }
  assert.deepEqual(counts, Array(ROUNDS).fill(1))
})

test('a condition that cannot hold leaves nothing behind: no repository, no manifest, no event', async (t) => {
  const { region, writers } = await setUp(t)
  const one = manifest('one')
  assert.equal(
    await writers.push({ repository: name, manifest: one, tag: v1, conditions: present }),
    'PRECONDITION_FAILED',
  )
  assert.equal(
    await writers.push({ repository: name, manifest: one, conditions: present }),
    'PRECONDITION_FAILED',
  )
  assert.equal(await repositoryExists(region.db, name), false)
})

test('If-None-Match with a digest refuses a push over exactly that digest', async (t) => {
  const { writers } = await setUp(t)
  const [one, two] = [manifest('one'), manifest('two')]
  await writers.push({ repository: name, manifest: one, tag: v1 })
  const notOver = (digest: string) =>
    writers.push({ repository: name, manifest: two, tag: v1, conditions: { ifNoneMatch: [digest] } })
  assert.equal(await notOver(one.digest), 'PRECONDITION_FAILED')
  assert.equal(await notOver(two.digest), 'ok')
})

test('a delete of a tag that only moves always finds it', async (t) => {
  const { writers } = await setUp(t)
  const answers: Answer[] = []
  for (let round = 0; round < DELETES; round++) {
    await writers.push({ repository: name, manifest: manifest('first'), tag: v1 })
    const move = (text: string) => writers.push({ repository: name, manifest: manifest(text), tag: v1 })
    const [, , answer] = await Promise.all([
      move('one'),
      move('two'),
      writers.deleteTag(name, v1),
      move('three'),
    ])
    answers.push(answer)
  }
  assert.deepEqual(
    answers.filter((answer) => answer !== 'ok'),
    [],
  )
})

test('a delete by digest beside pushes of the same digest always finds it', async (t) => {
  const { writers } = await setUp(t)
  const one = manifest('one')
  const push = (tag: string) => writers.push({ repository: name, manifest: one, tag: tag as Tag })
  const answers: Answer[] = []
  for (let round = 0; round < DELETES / 4; round++) {
    await push('v1')
    const [, answer] = await Promise.all([push('v1'), writers.deleteManifest(name, one.digest), push('v2')])
    answers.push(answer)
  }
  assert.deepEqual(
    answers.filter((answer) => answer !== 'ok'),
    [],
  )
})

test('a delete of a repository beside pushes into it always finds it', async (t) => {
  const { writers } = await setUp(t)
  const push = (text: string) => writers.push({ repository: name, manifest: manifest(text), tag: v1 })
  const answers: Answer[] = []
  for (let round = 0; round < DELETES / 4; round++) {
    await push('one')
    const [, answer, other] = await Promise.all([push('two'), writers.deleteRepository(name), push('three')])
    answers.push(answer, other)
  }
  assert.deepEqual(
    answers.filter((answer) => answer !== 'ok'),
    [],
  )
})
