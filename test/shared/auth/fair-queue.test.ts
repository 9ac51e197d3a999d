import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createFairQueue, QueueFullError } from '#shared/auth/fair-queue.ts'

/** A queue that runs one task at a time. The test ends each task by hand. */
function setUp(bounds: { waitingMax: number; waitingPerOriginMax: number }) {
  const queue = createFairQueue({ atOnce: 1, ...bounds })
  const started: string[] = []
  const ends: (() => void)[] = []
  const run = (origin: string, name: string) =>
    queue
      .run(origin, async () => {
        started.push(name)
        await new Promise<void>((end) => ends.push(end))
        return name
      })
      .catch((error: unknown) => {
        assert.ok(error instanceof QueueFullError)
        return error.full
      })
  const turn = () => new Promise((next) => setImmediate(next))
  const finish = async () => {
    for (let idle = 0; idle < 20; idle = ends.length === 0 ? idle + 1 : 0) {
      ends.shift()?.()
      await turn()
    }
  }
  return { run, started, finish, turn }
}

test('origins take turns, each in its own order', async () => {
  const { run, started, finish } = setUp({ waitingMax: 10, waitingPerOriginMax: 10 })
  const all = ['a1', 'a2', 'a3', 'b1', 'b2', 'c1'].map((name) => run(name.slice(0, 1), name))
  await finish()
  assert.deepEqual(started, ['a1', 'a2', 'b1', 'c1', 'a3', 'b2'])
  assert.deepEqual(await Promise.all(all), ['a1', 'a2', 'a3', 'b1', 'b2', 'c1'])
})

test('each line is bounded, and a full queue takes from the longest line', async () => {
  const { run, started, finish } = setUp({ waitingMax: 4, waitingPerOriginMax: 3 })
  const flood = Promise.all(['a1', 'a2', 'a3', 'a4', 'a5'].map((name) => run('a', name)))
  const others = Promise.all([run('b', 'b1'), run('c', 'c1'), run('d', 'd1'), run('e', 'e1')])
  await finish()
  // a1 runs and a2 to a4 wait. a5 exceeds its line's bound. c and d each displace one a. e finds no longer line.
  assert.deepEqual(await flood, ['a1', 'a2', 'all', 'all', 'own'])
  assert.deepEqual(await others, ['b1', 'c1', 'd1', 'all'])
  assert.deepEqual(started, ['a1', 'a2', 'b1', 'c1', 'd1'])
})

test('work that fails releases its slot', async () => {
  const queue = createFairQueue({ atOnce: 1, waitingMax: 2, waitingPerOriginMax: 2 })
  const failing = queue.run('a', async () => {
    throw new Error('no')
  })
  const next = queue.run('a', async () => 'done')
  await assert.rejects(failing, /no/)
  assert.equal(await next, 'done')
})
