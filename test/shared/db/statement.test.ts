import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bind, maybe, one, type Queryable, statement } from '#shared/db/statement.ts'

test('named parameters become numbers, each name one, and casts are left alone', () => {
  const compiled = statement('s', `select :a::text, :b, :a, x::int, '12:30' from t where c = :b_c`)
  assert.equal(compiled.text, `select $1::text, $2, $1, x::int, '12:30' from t where c = $3`)
  assert.deepEqual(compiled.parameters, ['a', 'b', 'b_c'])
})

test('a parameter that was forgotten is an error, not a null', () => {
  const compiled = statement('s', 'select :a, :b')
  assert.deepEqual(bind(compiled, { a: 1, b: null, extra: 2 }), [1, null])
  assert.throws(() => bind(compiled, { a: 1 }), /no value for :b/)
})

test('more rows than were promised, or none, are errors', async () => {
  const db = (rows: unknown[]) => ({ rows: async () => rows }) as Queryable
  const any = statement<number>('s', 'select 1')
  assert.equal(await maybe(db([]), any), undefined)
  assert.equal(await one(db([7]), any), 7)
  await assert.rejects(maybe(db([1, 2]), any), /at most one/)
  await assert.rejects(one(db([]), any), /no row/)
})
