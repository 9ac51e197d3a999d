// tests: shared/db/signing-keys.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ALICE, accountsNode, basic } from '../../support/accounts.ts'
import { sha256, testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { rawHttp } from '../../support/raw-http.ts'

const form = (fields: Record<string, string>) => ({
  headers: { 'Content-Type': 'application/x-www-form-urlencoded; charset=utf-8' },
  body: new URLSearchParams(fields).toString(),
})

test('the ping is 401 with one Bearer challenge to whoever has no credential, also where pulling is open', async (t) => {
  for (const anonymous of ['true', 'false']) {
    const node = await accountsNode(t, { env: { PORTOLAN_ANONYMOUS_PULL: anonymous } })
    const ping = await ociClient(node.url).request('GET', '/v2/')
    assert.equal(ping.status, 401)
    assert.match(
      ping.headers.get('www-authenticate') ?? '',
      /^Bearer realm="[^"]+\/token",service="portolan"$/,
    )
    for (const authorization of [basic(ALICE), await node.bearer([])]) {
      assert.equal((await ociClient(node.url, authorization).request('GET', '/v2/')).status, 200)
    }
  }
})

test('public pull, private push: an anonymous token pulls and does not push', async (t) => {
  const node = await accountsNode(t, { env: { PORTOLAN_ANONYMOUS_PULL: 'true' } })
  const image = testImage()
  await ociClient(node.url, await node.bearer(['repository:a:pull,push'])).pushImage('a', image, 'v1')
  const anonymous = `Bearer ${await node.token(['repository:a:pull,push'], null)}`
  for (const authorization of [undefined, anonymous, 'Basic Og==']) {
    const client = ociClient(node.url, authorization)
    assert.equal((await client.get('/v2/a/manifests/v1')).status, 200)
    assert.equal((await client.request('POST', '/v2/a/blobs/uploads/')).status, 401)
    assert.equal((await client.request('DELETE', '/v2/a/manifests/v1')).status, 401)
  }
})

test('tokens are had by GET and by POST, by password and by refresh token', async (t) => {
  const node = await accountsNode(t)
  const client = ociClient(node.url)
  const first = await client.request(
    'POST',
    '/token',
    form({
      grant_type: 'password',
      username: ALICE.name,
      password: ALICE.password,
      service: 'portolan',
      scope: 'repository:a:pull repository:b:pull,push',
      access_type: 'offline',
    }),
  )
  assert.equal(first.status, 200)
  assert.equal(first.headers.get('cache-control'), 'no-store')
  const answer = (await first.json()) as {
    access_token: string
    refresh_token: string
    scope: string
    expires_in: number
  }
  assert.equal(answer.scope, 'repository:a:pull repository:b:pull,push')
  const again = await client.request(
    'POST',
    '/token',
    form({ grant_type: 'refresh_token', refresh_token: answer.refresh_token, scope: 'repository:c:pull' }),
  )
  assert.equal(((await again.json()) as { scope: string }).scope, 'repository:c:pull')
  const byGet = await ociClient(node.url, basic(ALICE)).get(
    '/token?account=alice&scope=repository:a:pull+repository:b:pull&offline_token=true',
  )
  const got = JSON.parse(byGet.body.toString()) as { scope: string; refresh_token?: string }
  assert.equal(got.scope, 'repository:a:pull repository:b:pull')
  assert.ok(got.refresh_token)
})

test('bad requests for tokens are clear and bounded', async (t) => {
  const node = await accountsNode(t)
  const client = ociClient(node.url)
  assert.equal((await client.get('/token')).status, 401)
  assert.equal((await ociClient(node.url, basic({ ...ALICE, password: 'x' })).get('/token')).status, 401)
  assert.equal((await ociClient(node.url, 'Bearer x').get('/token')).status, 401)
  assert.equal(
    (
      await client.request(
        'POST',
        '/token',
        form({ grant_type: 'password', username: 'alice', password: 'x' }),
      )
    ).status,
    401,
  )
  assert.equal(
    (await client.request('POST', '/token', form({ grant_type: 'refresh_token', refresh_token: 'x' })))
      .status,
    401,
  )
  assert.equal((await client.request('POST', '/token', form({ grant_type: 'other' }))).status, 400)
  assert.equal((await client.request('POST', '/token', { body: '%%%' })).status, 400)
  assert.equal((await client.request('DELETE', '/token')).status, 405)
  assert.equal((await client.request('POST', '/token', { body: 'x'.repeat(70_000) })).status, 413)
})

test("two nodes of a region accept each other's tokens", async (t) => {
  const first = await accountsNode(t)
  const { region, url } = first
  const second = await accountsNode(t, { sharing: first })
  const token = await first.bearer(['repository:a:pull,push'])
  assert.equal((await ociClient(second.url, token).request('POST', '/v2/a/blobs/uploads/')).status, 202)
  assert.ok(region && url)
})

test("T2: forged forwarding headers change nothing; a trusted proxy's do", async (t) => {
  const forged = {
    'X-Forwarded-Proto': 'https',
    'X-Forwarded-Host': 'evil.example',
    'X-Forwarded-For': '6.6.6.6',
  }
  const plain = await accountsNode(t)
  const challenge = (await ociClient(plain.url).request('GET', '/v2/', { headers: forged })).headers.get(
    'www-authenticate',
  )
  assert.ok(challenge?.includes(`realm="http://127.0.0.1:${plain.port}/token"`))
  const behind = await accountsNode(t, { env: { PORTOLAN_TRUSTED_PROXIES: '127.0.0.0/8' } })
  const proxied = await ociClient(behind.url).request('GET', '/v2/', {
    headers: { ...forged, 'X-Forwarded-Host': 'registry.example' },
  })
  assert.ok(proxied.headers.get('www-authenticate')?.includes('realm="https://registry.example/token"'))
  for (const [node, address] of [
    [plain, '127.0.0.1'],
    [behind, '6.6.6.6'],
  ] as const) {
    assert.ok(node.logLines.some((line) => line.includes(`"address":"${address}"`)))
  }
})

test('T5: no secret that was sent is in any log line', async (t) => {
  const node = await accountsNode(t, { env: { PORTOLAN_LOG_LEVEL: 'debug' } })
  const token = await node.token(['repository:a:pull,push'])
  const clients = [ociClient(node.url, basic(ALICE)), ociClient(node.url, `Bearer ${token}`)]
  for (const client of clients) {
    await client.pushImage('a', testImage(), 'v1')
    await client.get('/v2/a/manifests/v1?token=planted-in-query')
    await client.get('/v2/a/manifests/missing')
  }
  await ociClient(node.url, `Bearer ${token}x`).get('/v2/a/manifests/v1')
  await ociClient(node.url).request(
    'POST',
    '/token',
    form({ grant_type: 'password', username: 'alice', password: ALICE.password }),
  )
  await ociClient(node.url).get(`/v2/%00planted-in-path/manifests/${token}`)
  const log = node.logLines.join('')
  assert.ok(node.logLines.length > 10)
  for (const secret of [ALICE.password, basic(ALICE).slice(6), token.slice(-40), 'planted-in-query']) {
    assert.ok(!log.includes(secret), `the log holds ${secret.slice(0, 10)}...`)
  }
})

test('D2: a huge body without a right to send it is answered 401 and barely read', async (t) => {
  const node = await accountsNode(t)
  const size = 10 * 2 ** 30
  const block = Buffer.alloc(64 * 1024)
  const head = `POST /v2/a/blobs/uploads/?digest=${sha256('x')} HTTP/1.1\r\nHost: h\r\nContent-Length: ${size}\r\n\r\n`
  const answer = await rawHttp(node.port, [head, ...Array.from({ length: 160 }, () => block)], 3_000)
  assert.deepEqual(answer.statuses, [401])
  assert.match(answer.text, /connection: close/i)
  assert.equal(answer.closed, true, 'cut, not drained')
})

test('each failed login is one line in the log: the account and the address, never the password', async (t) => {
  const node = await accountsNode(t)
  const planted = 'planted-wrong-password'
  assert.equal((await ociClient(node.url, basic({ ...ALICE, password: planted })).get('/v2/')).status, 401)
  assert.equal(
    (await ociClient(node.url, basic({ name: 'mallory', password: planted })).get('/token')).status,
    401,
  )
  const lines = node.logLines
    .filter((line) => line.includes('a login failed'))
    .map((line) => JSON.parse(line))
  assert.deepEqual(
    lines.map(({ level, account, address }) => ({ level, account, address })),
    ['alice', 'mallory'].map((account) => ({ level: 'warn', account, address: '127.0.0.1' })),
  )
  assert.ok(!node.logLines.join('').includes(planted))
})
