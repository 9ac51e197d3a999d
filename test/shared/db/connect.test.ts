import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openDatabase } from '#shared/db/connect.ts'
import { isUnreachable, sqlState } from '#shared/db/failures.ts'
import { one, statement } from '#shared/db/statement.ts'
import { openTestDatabase } from '../../support/database.ts'
import { testDatabase } from '../../support/postgres.ts'

const big = statement<{ value: number }>('big', 'select :value::int8 as value')
const upsert = statement<object>(
  'put',
  `insert into setting (kind, id, field, h, origin) values ('t', :id, :field, 0, '') on conflict (kind, id, field) do update set h = setting.h + 1`,
)

test('bigints are numbers, and one that would lose digits is an error', async (t) => {
  const { db } = await openTestDatabase(t)
  assert.equal((await one(db, big, { value: String(2 ** 53 - 1) })).value, 2 ** 53 - 1)
  await assert.rejects(one(db, big, { value: String(2n ** 53n) }), RangeError)
})

test('a transaction that throws leaves nothing, one that ends leaves all', async (t) => {
  const { db, query } = await openTestDatabase(t)
  await assert.rejects(
    db.transaction(async (transaction) => {
      await transaction.rows(upsert, { id: '1', field: 'a' })
      throw new Error('changed my mind')
    }),
    /changed my mind/,
  )
  assert.equal((await query('select from setting')).length, 0)
  await db.transaction((transaction) => transaction.rows(upsert, { id: '1', field: 'a' }))
  assert.equal((await query('select from setting')).length, 1)
})

test('transactions that deadlock are run again until both are done', async (t) => {
  const { db, query } = await openTestDatabase(t)
  for (const field of ['a', 'b']) await db.rows(upsert, { id: '1', field })
  let attempts = 0
  const both = (fields: [string, string], met: Promise<unknown>, meet: () => void) =>
    db.transaction(async (transaction) => {
      attempts++
      await transaction.rows(upsert, { id: '1', field: fields[0] })
      meet()
      await met
      await transaction.rows(upsert, { id: '1', field: fields[1] })
    })
  const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  await Promise.all([
    both(['a', 'b'], second.promise, first.resolve),
    both(['b', 'a'], first.promise, second.resolve),
  ])
  assert.ok(attempts >= 3, 'one of them was the victim')
  assert.deepEqual(await query('select h::text from setting'), [{ h: '2' }, { h: '2' }])
})

test('a database that is away is told from a statement that is wrong', async (t) => {
  const away = openDatabase({ url: 'postgres://u@127.0.0.1:1/d', connections: 2, onIdleError: () => {} })
  t.after(() => away[Symbol.asyncDispose]())
  const refused = await one(away, big, { value: '1' }).catch((error: unknown) => error)
  assert.equal(isUnreachable(refused), true)
  const { db } = await openTestDatabase(t)
  const wrong = await one(db, big, { value: 'x' }).catch((error: unknown) => error)
  assert.equal(isUnreachable(wrong), false)
  assert.equal(sqlState(wrong), '22P02')
})

test('a connection that is lost between two statements of a transaction fails it, and nothing else', async (t) => {
  const url = await testDatabase(t)
  await using db = openDatabase({ url, connections: 1, onIdleError: () => {} })
  await using other = openDatabase({ url, connections: 1, onIdleError: () => {} })
  const pid = statement<{ pid: number }>('own-pid', 'select pg_backend_pid() as pid')
  const end = statement<{ ended: boolean }>('end-backend', 'select pg_terminate_backend(:pid::int) as ended')
  const lost = db.transaction(async (transaction) => {
    await one(other, end, { pid: (await one(transaction, pid)).pid })
    // Long enough for the end of the connection to arrive while no statement waits for a result.
    await new Promise((turn) => setTimeout(turn, 200))
    return transaction.rows(pid)
  })
  await assert.rejects(lost)
  assert.ok((await one(db, pid)).pid, 'the next has a connection of its own')
})
