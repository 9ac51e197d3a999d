import assert from 'node:assert/strict'
import { createHmac, generateKeyPairSync, sign } from 'node:crypto'
import http from 'node:http'
import https from 'node:https'
import { type TestContext, test } from 'node:test'
import { createKeyRing, type StoredKey } from '#shared/auth/key-ring.ts'
import { createTokens } from '#shared/auth/tokens.ts'

const NOW = 1_800_000_000_000

async function setUp() {
  const keys: StoredKey[] = []
  const clock = { nowMs: NOW }
  const store = {
    list: async () => keys,
    insertIfAbsent: async (key: StoredKey) => {
      keys.push(key)
    },
  }
  const nowMs = () => clock.nowMs
  const ring = createKeyRing({ store, nowMs })
  const tokens = createTokens({ keys: ring, issuer: 'portolan/eu', ttlSeconds: 300, nowMs })
  const { token } = await tokens.issueAccess({
    subject: 'alice',
    scopes: [{ type: 'repository', name: 'a', actions: ['pull'] }],
  })
  const [key] = keys
  assert.ok(key)
  return { tokens, keys, key, clock, token }
}

const encode = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const decode = (segment = '') =>
  JSON.parse(Buffer.from(segment, 'base64url').toString()) as Record<string, unknown>

/** Fails the test if anything tries to reach the network. */
function trapNetwork(t: TestContext): void {
  const trap = () => assert.fail('something was fetched')
  t.mock.method(globalThis, 'fetch', trap)
  for (const module of [http, https]) {
    t.mock.method(module, 'request', trap)
    t.mock.method(module, 'get', trap)
  }
}

test('A10: of forty tokens three are valid, and verifying fetches nothing', async (t) => {
  trapNetwork(t)
  const { tokens, key, token } = await setUp()
  const [head, body, signature] = token.split('.')
  const header = decode(head)
  const claims = decode(body)
  const { createPrivateKey } = await import('node:crypto')
  const ours = createPrivateKey({ key: key.privateJwk as never, format: 'jwk' })
  const foreign = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const make = (headerOf: unknown, claimsOf: unknown, by = ours) => {
    const input = `${encode(headerOf)}.${encode(claimsOf)}`
    return `${input}.${sign('sha256', Buffer.from(input), { key: by, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
  }
  const hmac = (secret: string) => {
    const input = `${encode({ ...header, alg: 'HS256' })}.${body}`
    return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
  }
  const seconds = NOW / 1000
  const jwk = foreign.publicKey.export({ format: 'jwk' })
  const valid = [
    token,
    make(header, { ...claims, aud: ['registry', 'other'] }),
    make(header, { ...claims, exp: seconds - 59, iat: seconds - 300, nbf: seconds + 59 }),
  ]
  const invalid: Record<string, string> = {
    empty: '',
    'one segment': head ?? '',
    'two segments': `${head}.${body}`,
    'four segments': `${token}.x`,
    'no signature': `${head}.${body}.`,
    'a signature cut short': token.slice(0, -4),
    "another token's signature": `${head}.${encode({ ...claims, sub: 'bob' })}.${signature}`,
    'alg none': `${encode({ ...header, alg: 'none' })}.${body}.`,
    'alg none with our signature': `${encode({ ...header, alg: 'none' })}.${body}.${signature}`,
    'alg None': `${encode({ ...header, alg: 'None' })}.${body}.${signature}`,
    'HS256 with the public key as secret': hmac(JSON.stringify(key.publicJwk)),
    'HS256 with the public x': hmac(String(key.publicJwk.x)),
    RS256: make({ ...header, alg: 'RS256' }, claims),
    'RS256 with a key of its own': make({ ...header, alg: 'RS256' }, claims, rsa.privateKey),
    'a foreign key under our kid': make(header, claims, foreign.privateKey),
    'a foreign key that it brings along (jwk)': make({ ...header, jwk }, claims, foreign.privateKey),
    'our signature but a jwk too': make({ ...header, jwk }, claims),
    'a key to be fetched (jku)': make({ ...header, jku: 'http://evil.example/keys' }, claims),
    'a certificate to be fetched (x5u)': make({ ...header, x5u: 'http://evil.example/cert' }, claims),
    'a certificate (x5c)': make({ ...header, x5c: ['AAAA'] }, claims),
    'a critical extension': make({ ...header, crit: ['exp'] }, claims),
    'no kid': make({ alg: 'ES256', typ: 'JWT' }, claims),
    'an unknown kid': make({ ...header, kid: '00000000-0000-0000-0000-000000000000' }, claims),
    'a kid that is a path': make({ ...header, kid: '../../../dev/null' }, claims),
    'a kid that is SQL': make({ ...header, kid: "' or 1=1 --" }, claims),
    'another typ': make({ ...header, typ: 'refresh+jwt' }, claims),
    'no typ': make({ alg: 'ES256', kid: key.kid }, claims),
    expired: make(header, { ...claims, exp: seconds - 61 }),
    'not yet': make(header, { ...claims, nbf: seconds + 61 }),
    'another audience': make(header, { ...claims, aud: 'token' }),
    'no audience': make(header, { ...claims, aud: undefined }),
    'another issuer': make(header, { ...claims, iss: 'portolan/us' }),
    'no expiry': make(header, { ...claims, exp: undefined }),
    'an expiry that is text': make(header, { ...claims, exp: '9999999999' }),
    'no access': make(header, { ...claims, access: undefined }),
    'access of another shape': make(header, {
      ...claims,
      access: [{ type: 'repository', name: 'a', actions: 'pull' }],
    }),
    'claims twice': make(header, JSON.stringify(claims).replace('"sub":', '"sub":"bob","sub":')),
    'a header twice': make(JSON.stringify(header).replace('"alg":', '"alg":"none","alg":'), claims),
    'claims that are no object': make(header, '7'),
    'claims that are no JSON': make(header, '{'),
    'D10: a megabyte of dots': '.'.repeat(1_000_000),
    'D10: a token longer than any of ours': make(header, { ...claims, pad: 'x'.repeat(20_000) }),
  }
  for (const [index, one] of valid.entries()) assert.ok(await tokens.verifyAccess(one), `valid ${index}`)
  for (const [what, one] of Object.entries(invalid)) {
    assert.equal(await tokens.verifyAccess(one), undefined, what)
    assert.equal(tokens.remembered(one), undefined, what)
  }
  assert.ok(Object.keys(invalid).length + valid.length >= 40)
})

test('a verified token is cached exactly until it expires', async () => {
  const { tokens, clock, token } = await setUp()
  assert.equal(tokens.remembered(token), undefined)
  await tokens.verifyAccess(token)
  assert.equal(tokens.remembered(token)?.subject, 'alice')
  clock.nowMs += 361_000
  assert.equal(tokens.remembered(token), undefined)
  assert.equal(await tokens.verifyAccess(token), undefined)
})

test('access and refresh tokens are never accepted as each other', async () => {
  const { tokens, token } = await setUp()
  const refresh = await tokens.issueRefresh({ subject: 'alice', account: 'thumbprint' })
  assert.deepEqual(await tokens.verifyRefresh(refresh), { subject: 'alice', account: 'thumbprint' })
  assert.equal(await tokens.verifyAccess(refresh), undefined)
  assert.equal(await tokens.verifyRefresh(token), undefined)
})
