import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  algorithmOf,
  createDigester,
  digestBytes,
  isDigestLike,
  parseAlgorithm,
  parseDigest,
} from '#shared/oci/digest.ts'

const HEX64 = 'ab'.repeat(32)

test('I6: only the exact grammar is a digest, whatever a path would make of other text', () => {
  assert.equal(parseDigest(`sha256:${HEX64}`), `sha256:${HEX64}`)
  assert.equal(parseDigest(`sha512:${HEX64}${HEX64}`), `sha512:${HEX64}${HEX64}`)
  const wrong = [
    '',
    ':',
    'sha256',
    'sha256:',
    `sha256:${HEX64.slice(1)}`,
    `sha256:${HEX64}0`,
    `sha256:${HEX64.toUpperCase()}`,
    `SHA256:${HEX64}`,
    `sha256:${HEX64.slice(0, 63)}g`,
    `md5:${'0'.repeat(32)}`,
    `blake3:${HEX64}`,
    `sha512:${HEX64}`,
    `sha256:../../${'x'.repeat(58)}`,
    `sha256:${HEX64.slice(0, 63)}\0`,
    `sha256:${HEX64}\n`,
    `\nsha256:${HEX64}`,
    `${'a'.repeat(1_000_000)}:${HEX64}`,
  ]
  for (const text of wrong) assert.equal(parseDigest(text), undefined, JSON.stringify(text.slice(0, 90)))
})

test('digests equal those of node:crypto, for one chunk or many', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array()),
      fc.constantFrom('sha256' as const, 'sha512' as const),
      (chunks, algorithm) => {
        const whole = Buffer.concat(chunks)
        const expected = `${algorithm}:${createHash(algorithm).update(whole).digest('hex')}`
        const digester = createDigester(algorithm)
        for (const chunk of chunks) digester.update(chunk)
        assert.equal(digestBytes(algorithm, whole), expected)
        assert.equal(digester.digest(), expected)
        assert.equal(digester.digest(), expected, 'asking does not end it')
        assert.equal(algorithmOf(digester.digest()), algorithm)
        assert.equal(parseDigest(expected), expected)
      },
    ),
  )
})

test('a colon makes a reference a digest, and only two algorithms are known', () => {
  assert.equal(isDigestLike('sha256:x'), true)
  assert.equal(isDigestLike('latest'), false)
  assert.equal(parseAlgorithm('sha512'), 'sha512')
  assert.equal(parseAlgorithm('sha1'), undefined)
  assert.equal(parseAlgorithm('__proto__'), undefined)
})
