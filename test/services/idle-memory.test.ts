import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { giveBackIdleMemory } from '../../services/idle-memory.ts'
import { eventually } from '../support/eventually.ts'

const LOOK_MS = 1_000

/** Performs one check for each given share. Returns the number of collections so far after each check. */
function collectionsAfter(t: TestContext, shares: readonly number[]): number[] {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const left = [...shares]
  let collections = 0
  using _memory = giveBackIdleMemory({
    lookMs: LOOK_MS,
    busyShare: () => left.shift() ?? Number.NaN,
    collect: () => {
      collections++
    },
  })
  return shares.map(() => {
    t.mock.timers.tick(LOOK_MS)
    return collections
  })
}

test('the heap is collected once after two quiet checks, and again only after the process was busy', (t) => {
  assert.deepEqual(
    collectionsAfter(t, [0.9, 0.01, 0.01, 0.01, 0.01, 0.6, 0.01, 0.01, 0.01]),
    [0, 0, 1, 1, 1, 1, 1, 2, 2],
  )
})

test('a process that is never quiet for two checks is not stopped', (t) => {
  assert.deepEqual(collectionsAfter(t, [0.01, 0.2, 0.01, 0.2, 0.01]), [0, 0, 0, 0, 0])
})

test('the real collection frees garbage', async () => {
  let garbage: unknown[] | undefined = Array.from({ length: 400_000 }, (_, index) => ({ index }))
  const before = process.memoryUsage().heapUsed
  assert.equal(garbage.length, 400_000)
  garbage = undefined
  using _memory = giveBackIdleMemory({ lookMs: 1, busyShare: () => 0 })
  await eventually('the heap to shrink', () => process.memoryUsage().heapUsed < before - 5_000_000)
})
