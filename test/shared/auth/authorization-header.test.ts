import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseAuthorization } from '#shared/auth/authorization-header.ts'

const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`

test('Basic is a name and everything after the first colon', () => {
  assert.deepEqual(parseAuthorization(basic('alice:se:cret')), {
    kind: 'basic',
    name: 'alice',
    password: 'se:cret',
  })
  assert.deepEqual(parseAuthorization(basic('zo\u00eb:p\u00e4ss').replace('Basic', 'bAsIc')), {
    kind: 'basic',
    name: 'zo\u00eb',
    password: 'p\u00e4ss',
  })
})

test('no header, and the empty credentials that some clients send, are anonymous', () => {
  for (const header of [undefined, '', 'Basic Og=='])
    assert.deepEqual(parseAuthorization(header), { kind: 'none' })
})

test('everything else is malformed, at bounded cost', () => {
  for (const header of [
    'Basic',
    'Basic x:y',
    'Basic %%%',
    basic('nocolon'),
    basic('a\0b:c'),
    'Digest x',
    'Bearer ',
    `Basic ${'A'.repeat(9_000)}`,
    `Bearer ${'x'.repeat(30_000)}`,
    ' ',
  ]) {
    assert.deepEqual(parseAuthorization(header), { kind: 'malformed' }, header.slice(0, 30))
  }
  assert.deepEqual(parseAuthorization('Bearer abc.def'), { kind: 'bearer', token: 'abc.def' })
})

test('fuzz: any header is one of four kinds', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), (text) =>
      ['none', 'basic', 'bearer', 'malformed'].includes(parseAuthorization(text).kind),
    ),
  )
})
