import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createPeerVerifier, signPeerRequest } from '#shared/auth/peer-signature.ts'
import { RegistryError } from '#shared/errors.ts'

const key = 'k'.repeat(32)
const parts = { method: 'GET', target: '/peer/v1/log?after=0:1:0&wait=0', from: 'us', to: 'eu' }
const NOW_SECONDS = 1_795_500_000

let nonces = 0
function request(options: { key?: string; nowSeconds?: number; change?: Partial<typeof parts> } = {}) {
  const signed = signPeerRequest(
    { ...parts, ...options.change },
    {
      key: options.key ?? key,
      nowSeconds: options.nowSeconds ?? NOW_SECONDS,
      nonce: `nonce-${nonces++}`.padEnd(24, 'x'),
    },
  )
  return { method: parts.method, target: parts.target, headers: signed }
}

function verifier(keys: readonly string[] = [key]) {
  return createPeerVerifier({ region: 'eu', keys, now: () => NOW_SECONDS * 1_000 })
}

function why(work: () => unknown): string {
  try {
    work()
  } catch (thrown) {
    assert.ok(thrown instanceof RegistryError && thrown.code === 'UNAUTHORIZED')
    return thrown.message
  }
  return 'accepted'
}

test('the signature identifies the region', () => {
  assert.equal(verifier().verify(request()), 'us')
})

test('A14: no part of a request can be changed or left out', () => {
  const { verify } = verifier()
  const good = request()
  const { headers } = good
  assert.match(
    why(() => verify({ ...good, method: 'POST' })),
    /does not match/,
  )
  assert.match(
    why(() => verify({ ...good, target: '/peer/v1/log?after=0:1:9&wait=0' })),
    /does not match/,
  )
  assert.match(
    why(() => verify({ ...good, target: '/peer/v1/other?after=0:1:0&wait=0' })),
    /does not match/,
  )
  assert.match(
    why(() => verify({ ...good, headers: { ...headers, 'portolan-from': 'asia' } })),
    /does not match/,
  )
  for (const name of Object.keys(headers)) {
    const { [name]: _gone, ...rest } = headers
    assert.match(
      why(() => verify({ ...good, headers: rest })),
      /must be signed/,
      name,
    )
  }
  const input = headers['signature-input'] ?? ''
  const weaker = input.replace('"@query" ', '')
  assert.match(
    why(() => verify({ ...good, headers: { ...headers, 'signature-input': weaker } })),
    /must be signed/,
  )
  assert.equal(verify(good), 'us', 'what was refused has not used it up')
})

test('A14: a request is valid once, for one region, within a minute of its timestamp', () => {
  const { verify } = verifier()
  const one = request()
  assert.equal(verify(one), 'us')
  assert.match(
    why(() => verify(one)),
    /already received/,
  )
  assert.match(
    why(() => verify(request({ change: { to: 'asia' } }))),
    /is for region asia/,
  )
  assert.match(
    why(() => verify(request({ change: { from: 'eu' } }))),
    /has this region's name, eu/,
  )
  for (const off of [-3600, -61, 61, 3600])
    assert.match(
      why(() => verify(request({ nowSeconds: NOW_SECONDS + off }))),
      /differ by -?\d+ seconds/,
      String(off),
    )
  for (const off of [-60, 0, 60]) assert.equal(verify(request({ nowSeconds: NOW_SECONDS + off })), 'us')
})

test('keys are rotated without a moment in which regions refuse each other', () => {
  const next = 'n'.repeat(32)
  const accepts = (keys: string[], signedBy: string) =>
    why(() => verifier(keys).verify(request({ key: signedBy }))) === 'accepted'
  // Add the key everywhere, then move it to first place everywhere, then remove the old key.
  const steps = [[key], [key, next], [next, key], [next]]
  for (const [index, here] of steps.entries()) {
    for (const there of steps.slice(Math.max(0, index - 1), index + 2))
      assert.ok(accepts(here, there[0] ?? ''))
  }
  assert.ok(!accepts([next], key))
})
