// The one lock order (shared/db/registers.ts): all writers run against each other, and Postgres never has to break a
// deadlock. Postgres counts the deadlocks it broke, and the pool counts the statements it ran again.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { databaseSession } from '../../support/database.ts'
import { eventually } from '../../support/eventually.ts'
import { descriptor, INDEX, manifestOf, sha256, type TestManifest } from '../../support/image.ts'
import { repositoryName, tags } from '../../support/push.ts'
import { testRegion } from '../../support/region.ts'
import { EMPTY_CONFIG, imageOf, randomOf, shuffled, type Writers, writersOf } from '../../support/writers.ts'

const CLIENTS = 8
/** Operations of each client. */
const OPERATIONS = 150
/** The promised bound. Postgres looks for a deadlock after a second of waiting, so one deadlock exceeds it. */
const SLOWEST_MS_MAX = 1_000
/** On a machine so busy that every call is slow, the bound is this many medians instead. */
const SLOWEST_MEDIANS_MAX = 20
const SEED = Number(process.env.TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31))

async function setUp(t: TestContext) {
  t.diagnostic(`seed ${SEED}`)
  const { region } = await testRegion(t)
  const session = await databaseSession(t, region.databaseUrl)
  const writers = writersOf(region)

  async function judge(): Promise<void> {
    const retries = region.db.retries()
    await region[Symbol.asyncDispose]()
    // A session reports its counters at the latest when it ends.
    await eventually('the sessions to end', async () => {
      const { rows } = await session.query(
        `select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`,
      )
      return rows.length === 0
    })
    const { rows } = await session.query(
      `select deadlocks::int from pg_stat_database where datname = current_database()`,
    )
    t.diagnostic(
      JSON.stringify({
        slowest: writers.slowest(),
        medianMs: writers.medianMs(),
        answers: writers.answers(),
        retries,
      }),
    )
    assert.deepEqual(
      { deadlocks: rows[0]?.deadlocks, retried: retries.deadlock },
      { deadlocks: 0, retried: 0 },
    )
    const msMax = Math.max(SLOWEST_MS_MAX, SLOWEST_MEDIANS_MAX * writers.medianMs())
    const { what, ms } = writers.slowest()
    assert.ok(ms < msMax, `${what} took ${ms} ms`)
  }
  return { writers, judge }
}

/** All clients do their parts at the same time. A failure is reported when all have ended. */
async function together(count: number, client: (index: number) => Promise<void>): Promise<void> {
  const ended = await Promise.allSettled(Array.from({ length: count }, (_, index) => client(index)))
  const failure = ended.find(({ status }) => status === 'rejected')
  if (failure?.status === 'rejected') throw failure.reason
}

test('clients that mount, upload and push the same new layers at once meet no deadlock', async (t) => {
  const { writers, judge } = await setUp(t)
  const [base, app] = [repositoryName('team/base'), repositoryName('team/app')]
  const expectOk = async (answer: ReturnType<Writers['push']>) => assert.equal(await answer, 'ok')
  await expectOk(writers.upload(base, EMPTY_CONFIG))
  await expectOk(writers.mount(app, base, sha256(EMPTY_CONFIG)))
  const layersEach = 5
  for (let round = 0; round < 5; round++) {
    const layers = Array.from({ length: layersEach }, () => randomBytes(64))
    for (const layer of layers) await expectOk(writers.upload(base, layer))
    await together(CLIENTS, async (index) => {
      const random = randomOf(SEED + round * CLIENTS + index)
      for (const layer of shuffled(layers, random)) {
        await expectOk(index % 4 === 3 ? writers.upload(app, layer) : writers.mount(app, base, sha256(layer)))
      }
      for (const tag of ['a', 'b', 'c']) {
        const manifest = imageOf(shuffled(layers, random), `${round} ${index} ${tag}`)
        await expectOk(
          writers.push({ repository: app, manifest, tags: shuffled(tags('a', 'b', 'c'), random) }),
        )
        await expectOk(writers.mount(app, base, sha256(layers[index % layersEach] ?? '')))
      }
    })
  }
  await judge()
})

test('all writers against each other meet no deadlock, none fails, and the slowest is quick', async (t) => {
  const { writers, judge } = await setUp(t)
  const repositories = ['one', 'two', 'three'].map(repositoryName)
  const layers = Array.from({ length: 6 }, () => randomBytes(64))
  const tagNames = tags('a', 'b', 'c', 'd', 'e')
  const images = Array.from({ length: 6 }, (_, index) =>
    imageOf(shuffled([...layers, ...layers.slice(0, index)], randomOf(SEED + index)), String(index)),
  )
  const indexes = Array.from({ length: 3 }, (_, index) =>
    manifestOf(INDEX, {
      manifests: shuffled(images, randomOf(SEED + index)).map(({ mediaType, bytes }) =>
        descriptor(mediaType, bytes),
      ),
    }),
  )
  const seeded = async (repository: (typeof repositories)[number]) => {
    for (const bytes of [EMPTY_CONFIG, ...layers]) await writers.upload(repository, bytes)
    for (const manifest of images) await writers.push({ repository, manifest, tags: tagNames })
  }
  for (const repository of repositories) await seeded(repository)

  await together(CLIENTS, async (index) => {
    const random = randomOf(SEED ^ (index * 7919))
    const pick = <T>(items: readonly T[]): T => items[Math.trunc(random() * items.length)] as T
    const pushOf = (manifest: TestManifest) => ({
      repository: pick(repositories),
      manifest,
      tags: shuffled(tagNames, random).slice(0, Math.trunc(random() * 5)),
    })
    const operations: [weight: number, run: () => Promise<unknown>][] = [
      [8, () => writers.push(pushOf(pick(images)))],
      [5, () => writers.push(pushOf(pick(indexes)))],
      [
        3,
        () => writers.push({ ...pushOf(pick(images)), tag: pick(tagNames), conditions: { ifMatch: ['*'] } }),
      ],
      [
        3,
        () =>
          writers.push({ ...pushOf(pick(images)), tag: pick(tagNames), conditions: { ifNoneMatch: ['*'] } }),
      ],
      [2, () => writers.push(pushOf(imageOf(shuffled(layers, random), String(random()))))],
      [5, () => writers.upload(pick(repositories), pick([EMPTY_CONFIG, ...layers]))],
      [
        8,
        () => writers.mount(pick(repositories), pick(repositories), sha256(pick([EMPTY_CONFIG, ...layers]))),
      ],
      [4, () => writers.deleteTag(pick(repositories), pick(tagNames))],
      [2, () => writers.deleteManifest(pick(repositories), pick([...indexes, ...images]).digest)],
      [2, () => writers.deleteBlob(pick(repositories), sha256(pick(layers)))],
      [1, writers.addWebhook],
      [2, writers.changeWebhook],
      [1, writers.removeWebhook],
    ]
    const wheel = operations.flatMap(([weight, run]) => Array.from({ length: weight }, () => run))
    for (let done = 0; done < OPERATIONS; done++) {
      // Rarely, and its content is pushed again afterwards. Otherwise most pushes would find their layers gone.
      if (done % 50 === 5 * index) {
        const repository = pick(repositories)
        await writers.deleteRepository(repository)
        await seeded(repository)
      }
      await pick(wheel)()
    }
  })
  await judge()
})
