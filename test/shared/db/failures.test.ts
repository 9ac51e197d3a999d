import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  isPassing,
  isUnreachable,
  meansUnreachable,
  retryCause,
  UnreachableError,
} from '#shared/db/failures.ts'
import { PoolBusyError } from '#shared/db/fair-share.ts'

const coded = (code: string, more: object = {}) => Object.assign(new Error('x'), { code, ...more })

test('a SQLSTATE says whether to run again, to try later, or that it is a bug', () => {
  for (const code of ['40001', '40P01']) assert.ok(retryCause(coded(code)), code)
  for (const code of [
    '40001',
    '40003',
    '53100',
    '53200',
    '53300',
    '53400',
    '57000',
    '57014',
    '57P01',
    '55P03',
    '25006',
    '08006',
  ])
    assert.ok(isPassing(coded(code)), code)
  for (const code of ['08006', '57P01', '57P03', '57P05', '25P03', '53300', 'ECONNREFUSED', 'ENOTFOUND'])
    assert.ok(meansUnreachable(coded(code)), code)
  for (const code of ['23505', '22P02', '42P01', '42501', 'XX000', '25001', '25P02', 'ERR_ASSERTION'])
    assert.ok(!isPassing(coded(code)), code)
  for (const code of ['57014', '55P03', '53100']) assert.ok(!meansUnreachable(coded(code)), code)
})

test('what pg throws without a code is known by its text', () => {
  for (const text of [
    'Connection terminated unexpectedly',
    'timeout expired',
    'Query read timeout',
    'Connection terminated due to connection timeout',
  ])
    assert.ok(meansUnreachable(new Error(text)), text)
  const busy = new Error('timeout exceeded when trying to connect')
  assert.ok(isPassing(busy))
  assert.ok(!meansUnreachable(busy), 'a pool that is empty is no outage')
  assert.ok(isPassing(new PoolBusyError('x')))
  assert.ok(!isPassing(new TypeError('x is not a function')))
})

test('a missing socket file is an outage, a missing file elsewhere is not', () => {
  assert.ok(meansUnreachable(coded('ENOENT', { syscall: 'connect' })))
  assert.ok(!meansUnreachable(coded('ENOENT', { syscall: 'open' })))
  const both = new AggregateError([coded('ECONNREFUSED'), coded('ECONNREFUSED')])
  assert.ok(meansUnreachable(both))
  assert.equal(new UnreachableError(both).code, 'ECONNREFUSED')
})

test("the database's absence is told by type: another part's socket is not the database's", () => {
  assert.ok(isUnreachable(new UnreachableError(coded('ECONNREFUSED'))))
  assert.ok(!isUnreachable(coded('ECONNREFUSED')))
})
