import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { describe, test } from 'node:test'
import { openDatabase } from '#shared/db/connect.ts'
import { isPassing, sqlState, UnreachableError } from '#shared/db/failures.ts'
import { endSession, limitsOf, openSession, type Work } from '#shared/db/session.ts'
import { one, statement } from '#shared/db/statement.ts'
import { openTestDatabase } from '../../support/database.ts'
import { eventually } from '../../support/eventually.ts'

const onError = () => {}
const sleep = statement<object>('sleep', 'select pg_sleep(:seconds::float8) as slept')
const lockTable = statement<object>('lock-setting', 'lock table setting in exclusive mode')
const pid = statement<{ pid: number }>('session-pid', 'select pg_backend_pid() as pid')

// These tests wait more than they work.
describe('sessions', { concurrency: true }, () => {
  test('every kind of work has a limit of every kind at the server', async (t) => {
    const { url } = await openTestDatabase(t)
    for (const work of ['write', 'read', 'lease', 'migration'] satisfies Work[]) {
      const client = await openSession(url, work, { onError })
      const limits = limitsOf(work)
      const { rows } = await client.query(
        `select name, setting::int as value from pg_settings where name in
         ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout')`,
      )
      assert.deepEqual(Object.fromEntries(rows.map(({ name, value }) => [name, value])), {
        statement_timeout: limits.statementMs,
        lock_timeout: limits.lockMs,
        idle_in_transaction_session_timeout: limits.transactionIdleMs,
        idle_session_timeout: limits.idleMs,
      })
      assert.ok(limits.statementMs > 0 && limits.lockMs > 0 && limits.transactionIdleMs > 0)
      endSession(client)
    }
  })

  test('a statement that runs or waits too long is cancelled and passes; the pool goes on', async (t) => {
    const { url, session } = await openTestDatabase(t)
    await using db = openDatabase({
      url,
      connections: 2,
      onIdleError: onError,
      limits: { statementMs: 200, lockMs: 100 },
    })
    const slow = await one(db, sleep, { seconds: 30 }).catch((error: unknown) => error)
    assert.equal(sqlState(slow), '57014')
    const holder = await session()
    await holder.query('begin; lock table setting in exclusive mode')
    const blocked = await db
      .transaction((transaction) => transaction.rows(lockTable))
      .catch((error: unknown) => error)
    assert.equal(sqlState(blocked), '55P03')
    assert.ok(isPassing(slow) && isPassing(blocked))
    await holder.query('rollback')
    await db.transaction((transaction) => transaction.rows(lockTable))
  })

  test('a transaction that pauses loses its locks, fails as unreachable, and the next has another connection', async (t) => {
    const { url } = await openTestDatabase(t)
    const options = { url, connections: 1, onIdleError: onError, limits: { transactionIdleMs: 100 } }
    await using db = openDatabase(options)
    await using other = openDatabase(options)
    const failure = await db
      .transaction(async (transaction) => {
        await transaction.rows(lockTable)
        await other.transaction((beside) => beside.rows(lockTable))
        return one(transaction, pid)
      })
      .catch((error: unknown) => error)
    assert.ok(failure instanceof UnreachableError, String(failure))
    assert.ok((await one(db, pid)).pid)
  })

  test('a server that takes connections and never answers is given up by this side', async (t) => {
    const silent = createServer(() => {})
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    t.after(() => silent.close())
    const { port } = silent.address() as { port: number }
    const opening = openSession(`postgres://u@127.0.0.1:${port}/d`, 'read', { onError })
    await assert.rejects(opening, UnreachableError)
  })

  test('ending a session does not wait for the server', async (t) => {
    const { url, query } = await openTestDatabase(t)
    const client = await openSession(url, 'read', { onError })
    const { rows } = await client.query('select pg_backend_pid() as pid')
    client.query('select pg_sleep(60)').catch(() => {})
    endSession(client)
    await eventually('the connection to be gone', async () => {
      await query('select pg_cancel_backend($1)', [rows[0].pid])
      return (await query('select from pg_stat_activity where pid = $1', [rows[0].pid])).length === 0
    })
  })
})
