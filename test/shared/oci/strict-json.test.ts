import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { JsonError, measureJson, parseStrictJson } from '#shared/oci/strict-json.ts'

const parse = (text: string) => parseStrictJson(Buffer.from(text))

test('plain JSON is parsed like JSON.parse', () => {
  fc.assert(
    fc.property(fc.jsonValue({ depthSize: 'small' }), fc.constantFrom(undefined, 2), (value, indent) => {
      const text = JSON.stringify(value, undefined, indent)
      if (/"(?:size|schemaVersion)"/.test(text)) return
      assert.deepEqual(parse(text), JSON.parse(text))
    }),
  )
})

test('I2: text that two readers could understand differently is refused', () => {
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

test('equal keys in different objects are no duplicates', () => {
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

test('fuzz: a second copy of any key in any object is detected', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue(), { minKeys: 1 }), (object) => {
      const [key] = Object.keys(object)
      const text = JSON.stringify(object)
      assert.throws(() => parse(`${text.slice(0, -1)},${JSON.stringify(key)}:1}`), JsonError)
    }),
  )
})

/** The text as bytes that count how often one of them is looked at. */
function counted(text: string): { bytes: ArrayLike<number>; reads: () => number } {
  let reads = 0
  const bytes = new Proxy(Buffer.from(text), {
    get(target, key) {
      if (key === 'length') return target.length
      reads++
      return target[Number(key)]
    },
  })
  return { bytes, reads: () => reads }
}

test('text that is costly to parse is refused after a bounded number of steps, before JSON.parse', (t) => {
  const parse = t.mock.method(JSON, 'parse')
  const depth = counted('['.repeat(4_000_000))
  assert.throws(() => measureJson(depth.bytes), /nested deeper than 64/)
  assert.ok(depth.reads() < 1_000)
  for (const text of ['[],', '{},', '1,', '{"a":1},', '"a",', ',']) {
    const many = counted(`[${text.repeat(1_000_000)}1]`)
    assert.throws(() => measureJson(many.bytes), /more than 200000 values/)
    assert.ok(many.reads() < 2 * 200_000 * text.length, text)
    assert.throws(() => parseStrictJson(Buffer.from(`[${text.repeat(1_000_000)}1]`)), JsonError)
  }
  const keys = counted(`{${Array.from({ length: 100_000 }, (_, index) => `"${index}":1`).join()}}`)
  assert.throws(() => measureJson(keys.bytes), /more than 10000 keys in one object/)
  assert.ok(keys.reads() < 2 * 10_001 * '"10000":1,'.length)
  assert.equal(parse.mock.callCount(), 0)
})

test('twice the length takes twice the steps, whatever the text contains', () => {
  const parts = [
    '1,',
    '"a",',
    '[1],',
    '{"a":1},',
    ' ',
    '"\\"",',
    '"\\\\",',
    '1.5,',
    '{"size":1},',
    '"é",',
    '{"\\u0061":1e5},',
  ]
  for (const part of parts) {
    const steps = [1_000, 2_000].map((times) => {
      const { bytes, reads } = counted(`{"size":[${part.repeat(times)}1]}`)
      measureJson(bytes)
      return reads()
    })
    const [once = 0, twice = 0] = steps
    assert.ok(Math.abs(twice - 2 * once) < 100, `${part}: ${steps}`)
  }
})

test('text that is not JSON takes no more steps than its length', () => {
  for (const junk of ['.', '1e', '-', ':', '"', '\\', '\\u', 'x', '}', '"a":1.']) {
    const steps = [1_000, 2_000].map((times) => {
      const { bytes, reads } = counted(`{"schemaversion":${junk.repeat(times)}`)
      measureJson(bytes)
      return reads()
    })
    const [once = 0, twice = 0] = steps
    assert.ok(twice - once <= 8 * 1_000 * junk.length, `${junk}: ${steps}`)
  }
})

test('an index of ten thousand annotated children is within the bound of values', () => {
  const child = {
    mediaType: 'a/b',
    digest: 'c',
    size: 1,
    platform: { os: 'd', architecture: 'e', variant: 'f' },
  }
  const annotated = { ...child, annotations: { a: 'b', c: 'd', e: 'f' } }
  const text = JSON.stringify({ manifests: Array.from({ length: 10_000 }, () => annotated) })
  assert.equal((parse(text) as { manifests: unknown[] }).manifests.length, 10_000)
})

test('fuzz: a fraction or an exponent is refused only in a size, however its key is escaped', () => {
  const key = fc.constantFrom('size', 'schemaVersion', '\\u0073ize', 'Size', 'sizes', 'x', '')
  const number = fc.constantFrom(
    '1',
    '1.0',
    '1e3',
    '1E3',
    '-1',
    '0.5',
    '"1.5"',
    'true',
    'false',
    'null',
    '[1.5]',
    '{"x":1.5}',
  )
  const space = fc.constantFrom('', ' ', '\n\t')
  fc.assert(
    fc.property(key, number, space, space, (name, value, before, after) => {
      const text = `[{"${name}"${before}:${after}${value}},1.5]`
      const integer = ['size', 'schemaVersion'].includes(JSON.parse(`"${name}"`))
      if (integer && /^[-0-9.eE]+$/.test(value) && /[.eE]/.test(value))
        assert.throws(() => parse(text), JsonError)
      else assert.deepEqual(parse(text), JSON.parse(text))
    }),
    { numRuns: 1_000 },
  )
})
