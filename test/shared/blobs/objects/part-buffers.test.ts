// tests: shared/blobs/waiting-line.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createPartBuffers } from '#shared/blobs/objects/part-buffers.ts'

const signal = new AbortController().signal

test('no more is handed out than the budget, in order of asking, and one buffer always', async () => {
  const buffers = createPartBuffers({ bytesMax: 10 })
  const first = await buffers.take(6, signal)
  const order: string[] = []
  const taking = async (name: string, bytes: number) => {
    const buffer = await buffers.take(bytes, signal)
    order.push(name)
    return buffer
  }
  const second = taking('second', 6)
  const third = taking('third', 4)
  assert.equal(buffers.inUse(), 6)
  buffers.give(first)
  for (const buffer of await Promise.all([second, third])) buffers.give(buffer)
  assert.deepEqual(order, ['second', 'third'])
  const large = await buffers.take(100, signal)
  assert.equal(large.length, 100, 'larger than the budget, alone')
  buffers.give(large)
  assert.equal(buffers.inUse(), 0)
})

test('whoever gives up waiting holds nobody up', async () => {
  const buffers = createPartBuffers({ bytesMax: 10 })
  const first = await buffers.take(10, signal)
  const abort = new AbortController()
  const impatient = buffers.take(10, abort.signal)
  const patient = buffers.take(10, signal)
  abort.abort(new Error('gone'))
  await assert.rejects(impatient, /gone/)
  buffers.give(first)
  assert.equal((await patient).length, 10)
})
