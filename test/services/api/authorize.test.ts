// Every route and method with every kind of credential. The table of rights is read from the program, so a new route
// without a row here fails.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Method, type RegistryRoute, routeNeeds } from '../../../services/api/authorize.ts'
import { ALICE, accountsNode, basic, ROOT } from '../../support/accounts.ts'
import { sha256, testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'

const image = testImage()
const layer = sha256(image.blobs[1] ?? '')

const paths: Readonly<Record<RegistryRoute, string>> = {
  base: '/v2/',
  catalog: '/v2/_catalog',
  tags: '/v2/a/x/tags/list',
  referrers: `/v2/a/x/referrers/${image.digest}`,
  blob: `/v2/a/x/blobs/${layer}`,
  uploads: '/v2/a/x/blobs/uploads/',
  upload: '/v2/a/x/blobs/uploads/eu.00000000-0000-0000-0000-000000000000',
  manifest: '/v2/a/x/manifests/v1',
}

const routes = Object.entries(routeNeeds).flatMap(([route, methods]) =>
  Object.entries(methods).map(([method, need]) => ({
    route: route as RegistryRoute,
    method: method as Method,
    need,
  })),
)

test('A1: every route refuses whoever lacks the right, tells nothing of the content, and says what is needed', async (t) => {
  const node = await accountsNode(t)
  await ociClient(node.url, basic(ALICE)).pushImage('a/x', image, 'v1')
  const other = await node.bearer(['repository:b/y:pull,push,delete'])
  const near = await node.bearer(['repository:a/x2:pull,push,delete repository:a:pull,push,delete'])
  const pullOnly = await node.bearer(['repository:a/x:pull'])
  const nothing = await node.bearer([])
  const credentials: [string, string | undefined][] = [
    ['nothing', undefined],
    ['nonsense', 'Bearer nonsense'],
    ['another scheme', 'Digest x'],
    ["another repository's token", other],
    ['tokens for names that are near', near],
    ['an empty token', nothing],
    ['a token for pulling', pullOnly],
  ]
  for (const { route, method, need } of routes) {
    // A new name each time, because failed logins delay the next one.
    const wrong: [string, string] = [
      'a wrong password',
      basic({ name: `${route}-${method}`, password: 'wrong' }),
    ]
    for (const [what, authorization] of [...credentials, wrong]) {
      const answer = await ociClient(node.url, authorization).request(method, paths[route])
      const body = await answer.text()
      const where = `${method} ${paths[route]} with ${what}`
      const pulls = Array.isArray(need) && need.length === 1 && need[0] === 'pull'
      const mayPass =
        (need === 'credential' && [other, near, nothing, pullOnly].includes(authorization ?? '')) ||
        (pulls && authorization === pullOnly)
      if (mayPass) {
        assert.equal(answer.status, 200, where)
        continue
      }
      assert.equal(answer.status, 401, where)
      const challenge = answer.headers.get('www-authenticate') ?? ''
      assert.match(challenge, /^Bearer realm="http:\/\/127\.0\.0\.1:\d+\/token",service="portolan"/, where)
      if (
        Array.isArray(need) &&
        !what.startsWith('a wrong') &&
        !what.startsWith('nonsense') &&
        !what.startsWith('another scheme')
      ) {
        assert.ok(challenge.includes(`scope="repository:a/x:${need.join(',')}"`), `${where}: ${challenge}`)
      }
      assert.ok(!body.includes(image.digest) && !body.includes('layers') && !body.includes('v1'), where)
      if (method !== 'HEAD') assert.match(body, /"code":"UNAUTHORIZED"/, where)
    }
  }
  assert.ok(routes.length >= 19)
})

test('the right credential opens every route, by login and by token', async (t) => {
  const node = await accountsNode(t)
  const token = await node.bearer(['repository:a/x:pull,push,delete', 'registry:catalog:*'])
  for (const authorization of [basic(ALICE), token]) {
    const client = ociClient(node.url, authorization)
    await client.pushImage('a/x', image, 'v1')
    for (const { route, method } of routes) {
      const { status } = await client.request(method, paths[route])
      assert.notEqual(status, 401, `${method} ${paths[route]}`)
      assert.ok(status < 500)
    }
  }
})

test('A13: a repository that exists and one that does not look the same from outside', async (t) => {
  const node = await accountsNode(t)
  await ociClient(node.url, basic(ALICE)).pushImage('a/x', image, 'v1')
  const token = await node.bearer(['repository:b/y:pull'])
  for (const authorization of [undefined, token]) {
    const client = ociClient(node.url, authorization)
    for (const path of [
      'tags/list',
      'manifests/v1',
      `manifests/${image.digest}`,
      `blobs/${layer}`,
      `referrers/${image.digest}`,
    ]) {
      const [there, not] = await Promise.all([client.get(`/v2/a/x/${path}`), client.get(`/v2/a/n/${path}`)])
      assert.equal(there.status, not.status)
      assert.equal(there.body.toString(), not.body.toString())
      assert.deepEqual([...there.headers.keys()].sort(), [...not.headers.keys()].sort())
    }
  }
})

test('A13: who may not pull is refused before anything is looked up', async (t) => {
  const node = await accountsNode(t)
  let lookups = 0
  const read = node.region.lookups.read
  node.region.lookups.read = (key) => {
    lookups++
    return read(key)
  }
  await ociClient(node.url).get('/v2/a/x/manifests/v1')
  await ociClient(node.url, await node.bearer(['repository:b:pull'])).get(`/v2/a/x/blobs/${layer}`)
  assert.equal(lookups, 0)
})

test('A2: having the digest is not having the content', async (t) => {
  const node = await accountsNode(t)
  const secret = Buffer.from('a secret of a/x')
  const digest = sha256(secret)
  await ociClient(node.url, basic(ALICE)).pushBlob('a/x', secret)
  const client = ociClient(node.url, await node.bearer(['repository:b/y:pull,push']))
  const absent = async () => {
    assert.equal((await client.request('HEAD', `/v2/b/y/blobs/${digest}`)).status, 404)
    assert.equal((await client.get(`/v2/b/y/blobs/${digest}`)).status, 404)
    assert.equal((await client.get(`/v2/b/y/blobs/${digest}`, { Range: 'bytes=0-1' })).status, 404)
  }
  await absent()
  const mount = await client.request('POST', `/v2/b/y/blobs/uploads/?mount=${digest}&from=a/x`)
  assert.equal(mount.status, 401)
  assert.match(
    mount.headers.get('www-authenticate') ?? '',
    /scope="repository:b\/y:pull,push repository:a\/x:pull"/,
  )
  assert.equal((await client.request('POST', `/v2/b/y/blobs/uploads/?mount=${digest}`)).status, 202)
  assert.equal(
    (await client.request('POST', `/v2/b/y/blobs/uploads/?digest=${digest}`)).status,
    202,
    'without a body',
  )
  const config = Buffer.from('{}')
  await client.pushBlob('b/y', config)
  const stealing = testImage({
    config: { mediaType: 'a/b', digest: sha256(config), size: 2 },
    layers: [{ mediaType: 'a/b', digest, size: secret.length }],
  })
  const refused = await client.pushManifest('b/y', 'v1', stealing)
  assert.equal(refused.status, 404)
  assert.match(await refused.text(), /MANIFEST_BLOB_UNKNOWN/)
  await absent()
})

test("A4: a session is nobody else's: not through another repository, not with another's token", async (t) => {
  const node = await accountsNode(t)
  const owner = ociClient(node.url, await node.bearer(['repository:a/x:pull,push']))
  const thief = ociClient(node.url, await node.bearer(['repository:b/y:pull,push']))
  const location = (await owner.request('POST', '/v2/a/x/blobs/uploads/')).headers.get('location') ?? ''
  await owner.request('PATCH', location, { body: Buffer.from('mine') })
  const id = location.split('/').at(-1)
  for (const [path, status] of [
    [location, 401],
    [`/v2/b/y/blobs/uploads/${id}`, 404],
  ] as const) {
    for (const method of ['GET', 'PATCH', 'PUT', 'DELETE']) {
      const query = method === 'PUT' ? `?digest=${sha256('mine')}` : ''
      const answer = await thief.request(
        method,
        path + query,
        method === 'PATCH' ? { body: Buffer.from('theirs') } : {},
      )
      assert.equal(answer.status, status, `${method} ${path}`)
    }
  }
  assert.equal((await owner.request('GET', location)).headers.get('range'), '0-3')
  assert.equal((await owner.request('PUT', `${location}?digest=${sha256('mine')}`)).status, 201)
})

test('A7: with deletes off tags, manifests and blobs stay, and say 405', async (t) => {
  const node = await accountsNode(t, { env: { PORTOLAN_DELETE: 'false' } })
  const client = ociClient(node.url, basic(ALICE))
  await client.pushImage('a/x', image, 'v1')
  for (const path of ['manifests/v1', `manifests/${image.digest}`, `blobs/${layer}`]) {
    const refused = await client.request('DELETE', `/v2/a/x/${path}`)
    assert.equal(refused.status, 405)
    assert.match(await refused.text(), /UNSUPPORTED/)
    assert.equal((await client.get(`/v2/a/x/${path}`)).status, 200)
  }
  assert.equal(
    (await ociClient(node.url, basic(ROOT)).request('DELETE', '/api/v1/repositories/a/x')).status,
    405,
  )
})

test('administration is for admins, by their own login only', async (t) => {
  const node = await accountsNode(t)
  const ask = (authorization?: string) => ociClient(node.url, authorization).request('GET', '/api/v1/region')
  assert.equal((await ask()).status, 401)
  assert.equal((await ask(basic(ALICE))).status, 403)
  assert.equal((await ask(`Bearer ${await node.token(['registry:catalog:*'], ROOT)}`)).status, 401)
  assert.deepEqual(await (await ask(basic(ROOT))).json(), { name: 'eu', epoch: 1 })
  assert.equal((await ociClient(node.url, basic(ROOT)).request('PUT', '/api/v1/region')).status, 405)
  assert.equal((await ociClient(node.url, basic(ROOT)).request('GET', '/api/v1/nothing')).status, 404)
})
