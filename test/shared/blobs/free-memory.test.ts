import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { freeMemory } from '#shared/blobs/free-memory.ts'

test('memory that is a chunk alone is given back at once', () => {
  const chunk = randomBytes(64 * 1024)
  const before = process.memoryUsage().arrayBuffers
  freeMemory(chunk)
  assert.equal(chunk.length, 0)
  assert.ok(before - process.memoryUsage().arrayBuffers >= 64 * 1024)
})

test('memory that others read too stays: a part of a larger buffer, and one from the pool', () => {
  const whole = randomBytes(100)
  const copy = Buffer.from(whole)
  const pooled = Buffer.from('from the pool')
  freeMemory(whole.subarray(10, 20))
  freeMemory(pooled)
  assert.ok(whole.equals(copy))
  assert.equal(pooled.toString(), 'from the pool')
})
