import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errorTable, RegistryError, toError } from '#shared/errors.ts'

test('every code is upper case, and every status is a client or server error', () => {
  for (const [code, { status, message }] of Object.entries(errorTable)) {
    assert.match(code, /^[A-Z_]+$/)
    assert.ok(status >= 400 && status < 600)
    assert.notEqual(message, '')
  }
})

test('an error takes its status and message from the table unless they are given', () => {
  const plain = new RegistryError('SIZE_INVALID')
  assert.equal(plain.status, 400)
  assert.equal(plain.message, errorTable.SIZE_INVALID.message)
  const told = new RegistryError('SIZE_INVALID', { status: 413, message: 'too much', cause: plain })
  assert.equal(told.status, 413)
  assert.equal(told.message, 'too much')
  assert.equal(told.cause, plain)
})

test('any thrown value becomes an Error that keeps it', () => {
  const error = new Error('x')
  assert.equal(toError(error), error)
  assert.equal(toError('text').cause, 'text')
})
