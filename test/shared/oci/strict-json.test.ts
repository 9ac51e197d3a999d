import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { JsonError, parseStrictJson } from '#shared/oci/strict-json.ts'

const parse = (text: string) => parseStrictJson(Buffer.from(text))

test('plain JSON is read as JSON.parse reads it', () => {
  fc.assert(
    fc.property(fc.jsonValue({ depthSize: 'small' }), fc.constantFrom(undefined, 2), (value, indent) => {
      const text = JSON.stringify(value, undefined, indent)
      if (/"(?:size|schemaVersion)"/.test(text)) return
      assert.deepEqual(parse(text), JSON.parse(text))
    }),
  )
})

test('I2: what two readers could understand differently is refused', () => {
  const refused: [string, Buffer | string][] = [
    ['duplicate keys', '{"a":1,"a":2}'],
    ['duplicate keys in another spelling', '{"a":1,"\\u0061":2}'],
    ['duplicate keys deep inside', '{"x":[{"y":{"a":1,"b":2,"a":3}}]}'],
    ['duplicate keys around strings with quotes', '{"a":"\\"a\\":1","b":"}","a":1}'],
    ['a byte order mark', Buffer.from([0xef, 0xbb, 0xbf, 0x7b, 0x7d])],
    ['UTF-16', Buffer.from('{}', 'utf16le')],
    ['broken UTF-8', Buffer.from([0x22, 0xc3, 0x28, 0x22])],
    ['overlong UTF-8', Buffer.from([0x22, 0xc0, 0xaf, 0x22])],
    ['NaN', '{"size":NaN}'],
    ['trailing data', '{} {}'],
    ['a size with an exponent', '{"size":1e3}'],
    ['a size with a fraction', '{"size" : 1.0}'],
    ['a size beyond all numbers', '{"size":1e400}'],
    ['depth', `${'['.repeat(100_000)}${']'.repeat(100_000)}`],
    ['depth of objects', `${'{"a":'.repeat(65)}1${'}'.repeat(65)}`],
    ['nothing', ''],
  ]
  for (const [what, text] of refused) {
    assert.throws(() => parseStrictJson(Buffer.from(text)), JsonError, what)
  }
})

test('keys that look alike in different objects are no duplicates', () => {
  assert.deepEqual(parse('[{"a":1},{"a":2},{"b":{"a":1},"a":"a"}]'), [
    { a: 1 },
    { a: 2 },
    { b: { a: 1 }, a: 'a' },
  ])
  assert.deepEqual(parse('{"a":["a","a"],"b":"a"}'), { a: ['a', 'a'], b: 'a' })
})

test('__proto__ is a key like any other', () => {
  const value = parse('{"__proto__":{"polluted":true}}') as object
  assert.equal(({} as { polluted?: boolean }).polluted, undefined)
  assert.deepEqual(Object.keys(value), ['__proto__'])
})

test('fuzz: adding a second copy of any key to any object is noticed', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue(), { minKeys: 1 }), (object) => {
      const [key] = Object.keys(object)
      const text = JSON.stringify(object)
      assert.throws(() => parse(`${text.slice(0, -1)},${JSON.stringify(key)}:1}`), JsonError)
    }),
  )
})
