import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { type Held, LeaseLostError, withLease } from '#shared/db/lease.ts'
import { openTestDatabase } from '../../support/database.ts'
import { eventually } from '../../support/eventually.ts'
import { freeze } from '../../support/freeze.ts'

const holder = join(import.meta.dirname, '../../support/lease-holder.ts')
const SILENCE_MS = 2_000

// These tests wait more than they work.
describe('leases', { concurrency: true }, () => {
  test('one at a time, and the next when the first has ended, whatever its work throws', async (t) => {
    const { url } = await openTestDatabase(t)
    const thrown = new Error('the work failed')
    await assert.rejects(
      withLease(url, 'work', async () => {
        assert.equal(await withLease(url, 'work', async () => {}), false)
        assert.equal(await withLease(url, 'other work', async () => {}), true)
        throw thrown
      }),
      thrown,
    )
    await eventually('the lease to be free', () => withLease(url, 'work', async () => {}))
  })

  test('a lease is held for as long as its holder lives, however long that is', async (t) => {
    const { url } = await openTestDatabase(t)
    await withLease(
      url,
      'work',
      async (lost, { requireHeld }) => {
        const endMs = performance.now() + 4 * SILENCE_MS
        await eventually('four times the silence to pass', async () => {
          requireHeld()
          assert.equal(await withLease(url, 'work', async () => {}), false)
          return performance.now() > endMs
        })
        assert.equal(lost.aborted, false)
      },
      { silenceMs: SILENCE_MS },
    )
  })

  test('a frozen holder makes room, and when it wakes its first question tells it so', {
    skip: process.platform !== 'linux' && 'reads /proc',
  }, async (t) => {
    const { url } = await openTestDatabase(t)
    const child = fork(holder, [url, 'work', String(SILENCE_MS)])
    t.after(() => child.kill('SIGKILL'))
    assert.deepEqual(await once(child, 'message').then(([message]) => message), 'held')
    await freeze(child)
    const taken = await eventually('the lease to be free', () => withLease(url, 'work', async () => {}))
    assert.equal(taken, true)
    child.kill('SIGCONT')
    const [told] = await once(child, 'message')
    assert.match(told.refused, /the lease work was lost/)
    assert.equal(told.aborted, true)
    const [code] = await once(child, 'exit')
    assert.equal(code, 0, 'losing a lease ends nothing else')
  })

  test('a lease whose connection the server ended is lost at once', async (t) => {
    const { url, query } = await openTestDatabase(t)
    await withLease(url, 'work', async (lost, held: Held) => {
      await query(
        `select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
      )
      await eventually('the signal to abort', () => lost.aborted)
      assert.throws(() => held.requireHeld(), LeaseLostError)
    })
  })
})
