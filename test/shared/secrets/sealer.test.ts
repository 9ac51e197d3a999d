import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createSealer, isSealed, SealError } from '#shared/secrets/sealer.ts'

const OLD = 'old-key-of-the-regions-0123456789-abc'
const NEW = 'new-key-of-the-regions-0123456789-abc'
const place = 'setting/webhook/1/secret'

test('a sealed value opens only in its own place, and reveals nothing', () => {
  const sealer = createSealer([OLD])
  for (const text of ['', 'whsec_planted', 'ü'.repeat(5_000)]) {
    const sealed = sealer.seal(text, place)
    assert.ok(isSealed(sealed) && sealed.startsWith(sealer.prefix))
    assert.ok(text === '' || !sealed.includes(text))
    assert.equal(sealer.open(sealed, place), text)
    assert.notEqual(sealer.seal(text, place), sealed, 'never the same twice')
    assert.throws(() => sealer.open(sealed, 'setting/webhook/2/secret'), /moved here from another place/)
  }
})

test('every changed character is detected, and text that is not sealed is reported', () => {
  const sealer = createSealer([OLD])
  const sealed = sealer.seal('planted', place)
  for (let at = 0; at < sealed.length; at++) {
    const changed = `${sealed.slice(0, at)}${sealed[at] === 'A' ? 'B' : 'A'}${sealed.slice(at + 1)}`
    // The last character carries bits that base64 ignores.
    if (
      Buffer.from(changed.slice(26), 'base64url').equals(Buffer.from(sealed.slice(26), 'base64url')) &&
      at >= 26
    )
      continue
    assert.throws(() => sealer.open(changed, place), SealError, `at ${at}`)
  }
  for (const text of ['', 'planted', sealed.slice(0, 40), `${sealed}!`])
    assert.throws(() => sealer.open(text, place), SealError)
})

test('keys are rotated one at a time: the first seals, all open, and a missing one is named', () => {
  const before = createSealer([OLD])
  const sealed = before.seal('planted', place)
  const both = createSealer([NEW, OLD])
  assert.equal(both.open(sealed, place), 'planted')
  assert.equal(createSealer([NEW]).open(both.seal('planted', place), place), 'planted')
  assert.throws(
    () => createSealer([NEW]).open(sealed, place),
    (error: Error) => error.message.includes(before.keyId) && !error.message.includes(OLD),
  )
  assert.match(before.keyId, /^[0-9a-f]{16}$/)
})
