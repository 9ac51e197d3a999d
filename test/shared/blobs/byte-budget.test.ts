// tests: shared/blobs/waiting-line.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createByteBudget } from '#shared/blobs/byte-budget.ts'

const MIB = 1024 * 1024
const never = new AbortController().signal

test('few streams get large buffers, many get small ones, and the sum never exceeds the budget', async () => {
  const budget = createByteBudget({ bytesMax: 16 * MIB })
  const taken: Buffer[] = []
  const abort = new AbortController()
  for (;;) {
    const next = await Promise.race([budget.take(100 * MIB, abort.signal), Promise.resolve(undefined)])
    if (next === undefined) break
    taken.push(next)
    assert.ok(budget.inUse() <= 16 * MIB)
  }
  abort.abort()
  assert.equal(taken[0]?.length, MIB)
  assert.equal(taken.at(-1)?.length, 64 * 1024)
  for (const buffer of taken) budget.give(buffer)
  assert.equal(budget.inUse(), 0)
})

test('a small wish gets a small buffer', async () => {
  const budget = createByteBudget({ bytesMax: 16 * MIB })
  assert.equal((await budget.take(10, never)).length, 64 * 1024)
  assert.equal((await budget.take(200_000, never)).length, 256 * 1024)
})

test('who finds the budget spent waits in line and is served in order', async () => {
  const budget = createByteBudget({ bytesMax: 64 * 1024 })
  const first = await budget.take(1, never)
  const order: string[] = []
  const second = budget.take(1, never).then((buffer) => {
    order.push('second')
    return buffer
  })
  const third = budget.take(1, never).then((buffer) => {
    order.push('third')
    return buffer
  })
  budget.give(first)
  budget.give(await second)
  budget.give(await third)
  assert.deepEqual(order, ['second', 'third'])
  assert.equal(budget.inUse(), 0)
})

test('a stream that goes away leaves the line', async () => {
  const budget = createByteBudget({ bytesMax: 64 * 1024 })
  const held = await budget.take(1, never)
  const abort = new AbortController()
  const waiting = budget.take(1, abort.signal)
  const next = budget.take(1, never)
  abort.abort(new Error('gone'))
  await assert.rejects(waiting, /gone/)
  budget.give(held)
  budget.give(await next)
  await assert.rejects(budget.take(1, abort.signal), /gone/)
})
