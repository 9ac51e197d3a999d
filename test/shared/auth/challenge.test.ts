import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { bearerChallenge, createAddressMatcher, realmOf } from '#shared/auth/challenge.ts'

const source = {
  publicUrl: undefined,
  encrypted: false,
  host: 'localhost:5000',
  forwardedProto: undefined,
  forwardedHost: undefined,
  trusted: false,
}

test('the realm is the configured URL, else derived from the request', () => {
  assert.equal(realmOf(source), 'http://localhost:5000/token')
  assert.equal(realmOf({ ...source, encrypted: true }), 'https://localhost:5000/token')
  assert.equal(
    realmOf({ ...source, publicUrl: 'https://registry.example' }),
    'https://registry.example/token',
  )
})

test('T2: forwarding headers count only from a trusted proxy', () => {
  const forged = { ...source, forwardedProto: 'https', forwardedHost: 'evil.example' }
  assert.equal(realmOf(forged), 'http://localhost:5000/token')
  assert.equal(
    realmOf({ ...forged, trusted: true, forwardedHost: 'registry.example, inner' }),
    'https://registry.example/token',
  )
})

test('T2: a Host header cannot inject anything into the challenge', () => {
  for (const host of ['evil"', 'a b', 'a/b', 'a,b', 'x"\r\nSet-Cookie: y', 'user@evil', '[::1', '']) {
    assert.equal(realmOf({ ...source, host }), 'http://localhost/token', host)
  }
  fc.assert(
    fc.property(fc.string(), (host) =>
      /^http:\/\/[A-Za-z0-9.:[\]-]+\/token$/.test(realmOf({ ...source, host })),
    ),
  )
})

test('the challenge is one Bearer with quoted parameters', () => {
  assert.equal(
    bearerChallenge({ realm: 'http://h/token', scope: 'repository:a:pull', error: 'invalid_token' }),
    'Bearer realm="http://h/token",service="portolan",scope="repository:a:pull",error="invalid_token"',
  )
})

test('addresses match ranges, including IPv4-mapped IPv6; without ranges nothing matches', () => {
  const trusted = createAddressMatcher(['10.0.0.0/8', '::1/128'])
  for (const address of ['10.1.2.3', '::ffff:10.1.2.3', '::1']) assert.equal(trusted(address), true, address)
  for (const address of ['11.0.0.1', '::2', '', 'x', undefined]) assert.equal(trusted(address), false)
  assert.equal(createAddressMatcher([])('10.0.0.1'), false)
})
