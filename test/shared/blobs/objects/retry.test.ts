import assert from 'node:assert/strict'
import { test } from 'node:test'
import { StoreError } from '#shared/blobs/blob-store.ts'
import type { Failure } from '#shared/blobs/objects/object-service.ts'
import { RETRY_LIMITS, retrying } from '#shared/blobs/objects/retry.ts'

const limits = { ...RETRY_LIMITS, waitMs: 1, waitMsMax: 2 }
const failureOf = (thrown: unknown): Failure => ({
  kind: 'unavailable',
  again: (thrown as Error).message === 'again',
  message: `it said ${(thrown as Error).message}`,
})

function failing(times: number, message: string) {
  let calls = 0
  return {
    calls: () => calls,
    work: async () => {
      if (++calls <= times) throw new Error(message)
      return 'done'
    },
  }
}

test('what may succeed later is tried again, at most so many times', async () => {
  const twice = failing(2, 'again')
  assert.equal(await retrying(twice.work, { failureOf, limits }), 'done')
  assert.equal(twice.calls(), 3)
  const always = failing(100, 'again')
  await assert.rejects(
    retrying(always.work, { failureOf, limits }),
    (error) => error instanceof StoreError && error.message === 'it said again',
  )
  assert.equal(always.calls(), limits.triesMax)
})

test('what cannot succeed is told at once, and a StoreError as it is', async () => {
  const denied = failing(100, 'denied')
  await assert.rejects(retrying(denied.work, { failureOf, limits }), StoreError)
  assert.equal(denied.calls(), 1)
  const own = new StoreError('corrupt', 'own')
  await assert.rejects(
    retrying(() => Promise.reject(own), { failureOf, limits }),
    own,
  )
})

test('silence ends a try, and tries end with the total time', async () => {
  let calls = 0
  const silent = () => {
    calls++
    return new Promise<never>(() => {})
  }
  const short = { ...limits, tryMs: 5, totalMs: 12 }
  await assert.rejects(retrying(silent, { failureOf, limits: short }), /did not answer within 5 ms/)
  assert.ok(calls <= 4, `${calls} tries`)
})

test('a caller that goes away ends it with its own reason', async () => {
  const abort = new AbortController()
  const waiting = retrying(() => new Promise<never>(() => {}), { failureOf, limits, signal: abort.signal })
  abort.abort(new Error('gone'))
  await assert.rejects(waiting, /gone/)
})
