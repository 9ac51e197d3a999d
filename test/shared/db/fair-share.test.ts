import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createFairShare, PoolBusyError } from '#shared/db/fair-share.ts'

test('one repository has three quarters of the pool, in the order of asking, and the others have the rest', async () => {
  const share = createFairShare({ connections: 8, waitMs: 60_000 })
  const ends: (() => void)[] = []
  const begun: number[] = []
  const work = (number: number) =>
    share.run('a', () => {
      begun.push(number)
      return new Promise<void>((end) => ends.push(end))
    })
  const all = Array.from({ length: 9 }, (_, number) => work(number))
  await Promise.resolve()
  assert.deepEqual(begun, [0, 1, 2, 3, 4, 5])
  assert.equal(await share.run('b', async () => 'other repositories'), 'other repositories')
  assert.equal(await share.run(undefined, async () => 'no repository'), 'no repository')
  ends[3]?.()
  await all[3]
  await Promise.resolve()
  assert.deepEqual(begun, [0, 1, 2, 3, 4, 5, 6])
  while (ends.length < 9) {
    for (const end of ends) end()
    await new Promise((turn) => setImmediate(turn))
  }
  for (const end of ends) end()
  await Promise.all(all)
  assert.deepEqual(begun, [0, 1, 2, 3, 4, 5, 6, 7, 8])
})

test('who waits too long is refused and takes no place, and work that throws gives its place back', async () => {
  const share = createFairShare({ connections: 2, waitMs: 10 })
  let end = () => {}
  const first = share.run('a', () => new Promise<void>((done) => (end = done)))
  await assert.rejects(
    share.run('a', async () => {}),
    PoolBusyError,
  )
  end()
  await first
  await assert.rejects(
    share.run('a', () => Promise.reject(new TypeError('x'))),
    TypeError,
  )
  assert.equal(await share.run('a', async () => 'free'), 'free')
})
