// Every route and method of every surface with every kind of credential. The table is that of the program: a new route
// without an example here fails, and a route that declares no need cannot be registered.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { createKeyRing } from '#shared/auth/key-ring.ts'
import { signPeerRequest } from '#shared/auth/peer-signature.ts'
import { createTokens } from '#shared/auth/tokens.ts'
import { listSigningKeys } from '#shared/db/signing-keys.ts'
import type { Region } from '#shared/region.ts'
import { adminRoutes } from '../../../services/api/admin/routes.ts'
import { buildApp } from '../../../services/api/app.ts'
import type { RouteNeed } from '../../../services/api/authorize.ts'
import { openEdge } from '../../../services/api/edge.ts'
import { fixedRoutes } from '../../../services/api/fixed-routes.ts'
import { type Methods, type Needed, requireNeeds } from '../../../services/api/route.ts'
import { registryRoutes } from '../../../services/api/v2/dispatch.ts'
import { ALICE, accountsNode, basic, ROOT } from '../../support/accounts.ts'
import { sha256, testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { testRegion } from '../../support/region.ts'

const KEY = 'first-key-of-the-regions-0123456789'
const UUID = '00000000-0000-0000-0000-000000000000'
const DIGEST = `sha256:${'0'.repeat(64)}`
const image = testImage()

const targets: Readonly<Record<string, string>> = {
  base: '/v2/',
  catalog: '/v2/_catalog',
  tags: '/v2/a/x/tags/list',
  referrers: `/v2/a/x/referrers/${image.digest}`,
  blob: `/v2/a/x/blobs/${sha256(image.blobs[1] ?? '')}`,
  uploads: '/v2/a/x/blobs/uploads/',
  upload: `/v2/a/x/blobs/uploads/eu.${UUID}`,
  manifest: '/v2/a/x/manifests/v1',
  live: '/livez',
  ready: '/readyz',
  token: '/token?scope=repository:a/x:pull',
  schemas: '/api/v1/schemas',
  schema: '/api/v1/schemas/dev.portolan.registry.push.v1.json',
  openapi: '/api/v1/openapi.json',
  events: '/api/v1/events',
  region: '/api/v1/region',
  repository: '/api/v1/repositories/never/there',
  webhooks: '/api/v1/webhooks',
  webhook: `/api/v1/webhooks/${UUID}`,
  'webhook-deliveries': `/api/v1/webhooks/${UUID}/deliveries`,
  'webhook-test': `/api/v1/webhooks/${UUID}/test`,
  'webhook-replay': `/api/v1/webhooks/${UUID}/replay`,
  'webhook-redeliver': `/api/v1/webhooks/${UUID}/redeliver`,
  'peer-blob': `/peer/v1/blobs/${DIGEST}?repository=never/there`,
  'peer-manifest': `/peer/v1/manifests/${DIGEST}?repository=never/there`,
  'peer-log': '/peer/v1/log?after=0:1:0',
}

const all: { name: string; method: string; need: RouteNeed }[] = [
  ...Object.entries(registryRoutes).map(([name, methods]) => ({ name, methods: methods as Methods<Needed> })),
  ...fixedRoutes,
].flatMap(({ name, methods }) =>
  Object.entries(methods).map(([method, { need }]) => ({ name, method, need })),
)
for (const { name, method, need } of adminRoutes(() => ({}))) {
  all.push({ name, method, need })
  if (method === 'GET') all.push({ name, method: 'HEAD', need })
}

type Caller = 'nobody' | 'expired' | 'foreign' | 'pull-only' | 'account' | 'admin' | 'peer'

/** Whether a need admits a caller. All others are refused before the handler. */
function lets(need: RouteNeed, caller: Caller): boolean {
  if (need === 'nothing') return true
  if (need === 'peer') return caller === 'peer'
  if (caller === 'peer' || caller === 'nobody' || caller === 'expired') return false
  switch (need) {
    case 'login':
      return caller === 'account' || caller === 'admin'
    case 'admin':
      return caller === 'admin'
    case 'credential':
    case 'reader':
      return true
    case 'catalog':
      return caller === 'account' || caller === 'admin'
    default:
      return caller === 'account' || caller === 'admin' || (caller === 'pull-only' && need.join() === 'pull')
  }
}

async function callersOf(t: TestContext) {
  const node = await accountsNode(t, {
    env: { PORTOLAN_PEER_KEYS: KEY, PORTOLAN_TOKEN_TTL_SECONDS: '60' },
  })
  const pullOnly = await node.bearer(['repository:a/x:pull'])
  const foreign = await node.bearer(['repository:b/y:pull,push,delete'])
  return { node, pullOnly, foreign, expired: await expiredToken(node.region) }
}

/** Signed by the region's own key an hour ago, with all rights. */
async function expiredToken({ db, name, sealer }: Region): Promise<string> {
  const keys = createKeyRing({
    store: {
      list: async () => (sealer === undefined ? [] : listSigningKeys(db, sealer, () => {})),
      insertIfAbsent: () => Promise.reject(new Error('a key is there')),
    },
  })
  const tokens = createTokens({
    keys,
    issuer: `portolan/${name}`,
    ttlSeconds: 60,
    nowMs: () => Date.now() - 3_600_000,
  })
  const scopes = [
    { type: 'repository', name: 'a/x', actions: ['pull', 'push', 'delete'] },
    { type: 'registry', name: 'catalog', actions: ['*'] },
  ]
  return `Bearer ${(await tokens.issueAccess({ subject: ALICE.name, scopes })).token}`
}

let signed = 0

function headersOf(
  caller: Caller,
  request: { method: string; target: string; tokens: Record<string, string> },
) {
  const { method, target, tokens } = request
  switch (caller) {
    case 'nobody':
      return {}
    case 'account':
      return { Authorization: basic(ALICE) }
    case 'admin':
      return { Authorization: basic(ROOT) }
    case 'peer':
      return signPeerRequest(
        { method, target, from: 'us', to: 'eu' },
        { key: KEY, nowSeconds: Math.floor(Date.now() / 1_000), nonce: `nonce-of-request-${++signed}` },
      )
    default:
      return { Authorization: tokens[caller] ?? '' }
  }
}

test('every route of every surface has an example here', () => {
  assert.deepEqual([...new Set(all.map(({ name }) => name))].toSorted(), Object.keys(targets).toSorted())
  assert.ok(all.length >= 40, `${all.length} routes and methods`)
})

test('A1: every route of every surface lets in whom its need says and nobody else, and reads no body of others', async (t) => {
  const { node, pullOnly, foreign, expired } = await callersOf(t)
  await ociClient(node.url, basic(ALICE)).pushImage('a/x', image, 'v1')
  const tokens = { 'pull-only': pullOnly, foreign, expired }
  const callers: Caller[] = ['nobody', 'expired', 'foreign', 'pull-only', 'account', 'admin', 'peer']
  // Deletions come last, so that each route still has something to refuse.
  const order = all.toSorted(
    (one, other) => Number(one.method === 'DELETE') - Number(other.method === 'DELETE'),
  )
  for (const caller of callers) {
    for (const { name, method, need } of order) {
      const target = targets[name] ?? ''
      const where = `${method} ${target} by ${caller}`
      const answer = await fetch(node.url + target, {
        method,
        headers: headersOf(caller, { method, target, tokens }),
        ...(['POST', 'PUT', 'PATCH'].includes(method) && { body: 'not what is wanted' }),
      })
      const body = await answer.text()
      if (lets(need, caller)) {
        assert.ok(
          ![401, 403].includes(answer.status) || (name === 'token' && method === 'POST'),
          `${where}: ${answer.status} ${body}`,
        )
        assert.ok(answer.status < 500, `${where}: ${answer.status} ${body}`)
        continue
      }
      // An anonymous token is no secret, and a form is refused because of its content.
      if (name === 'token') {
        assert.ok(method === 'POST' ? answer.status === 400 : [200, 401].includes(answer.status), where)
        continue
      }
      const denied = need === 'admin' && caller === 'account' ? 403 : 401
      assert.equal(answer.status, denied, where)
      if (method !== 'HEAD') assert.match(body, /"code":"(UNAUTHORIZED|DENIED)"/, where)
      assert.ok(denied === 403 || answer.headers.has('www-authenticate'), where)
      assert.doesNotMatch(body, new RegExp(`${image.digest}|layers`), where)
    }
  }
})

test('a route that declares no need cannot be registered', async (t) => {
  const { region } = await testRegion(t)
  await using edge = await openEdge(region, { registry: region })
  const app = buildApp({ edge, begin: () => {} })
  t.after(() => app.close())
  assert.throws(() => app.get('/api/v1/open', () => 'secret'), /is not declared/)
  const [declared = assert.fail()] = adminRoutes(() => ({}))
  const routes = () => [{ ...declared, need: undefined as never }]
  const careless = buildApp({ edge, begin: () => {}, routes })
  await assert.rejects(async () => careless.ready(), /GET of the route region declares no need/)
  assert.throws(
    () => requireNeeds('open', { GET: { need: undefined as never } }),
    /GET of the route open declares no need/,
  )
})
