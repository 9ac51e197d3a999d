// The OpenAPI document describes what /api/v1 does. A validator of the specification accepts it. Every operation in it
// is called, and each reply is checked against it. Everything that a handler returns reaches the client.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Validator } from '@seriousme/openapi-schema-validator'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { statement } from '#shared/db/statement.ts'
import type { Declaration } from '../../../../services/api/admin/declare.ts'
import { adminRoutes } from '../../../../services/api/admin/routes.ts'
import { ALICE, accountsNode, basic, ROOT } from '../../../support/accounts.ts'
import { testImage } from '../../../support/image.ts'
import { numberOutbox } from '../../../support/log-writer.ts'
import { ociClient } from '../../../support/oci-client.ts'

interface Operation {
  operationId: string
  security: Record<string, string[]>[]
  parameters?: { name: string; in: string; required?: boolean }[]
  responses: Record<string, { content?: Record<string, unknown>; headers?: Record<string, unknown> }>
}

interface Document {
  openapi: string
  paths: Record<string, Record<string, Operation>>
}

const NEVER = '00000000-0000-0000-0000-000000000000'

/** A node that records the last value returned by a handler. */
async function watchedNode(t: TestContext) {
  let returned: unknown
  const watched = (route: Declaration): Declaration => ({
    ...route,
    async handle(call) {
      returned = undefined
      const answer = await route.handle(call)
      returned = answer?.body
      return answer
    },
  })
  const node = await accountsNode(t, {
    routes: (document) => adminRoutes(document).map(watched),
    env: { PORTOLAN_WEBHOOKS_ALLOW_PRIVATE: 'true' },
  })
  const answer = await fetch(`${node.url}/api/v1/openapi.json`)
  assert.equal(answer.headers.get('content-type'), 'application/json')
  const document = (await answer.json()) as Document
  return { node, document, returned: () => returned }
}

function operationsOf(document: Document) {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  )
}

interface Asked {
  operationId: string
  params?: Record<string, string>
  query?: string
  body?: unknown
  /** Sent unchanged. */
  text?: string
  /** The credentials to send; by default those of an admin. */
  as?: 'nobody' | { name: string; password: string }
  status: number
}

test('the document is OpenAPI 3.1, describes every route, and needs no credentials', async (t) => {
  const { document } = await watchedNode(t)
  const { valid, errors } = await new Validator().validate({ ...document })
  assert.ok(valid, JSON.stringify(errors))
  assert.match(document.openapi, /^3\.1\./)
  const broken = { ...document, paths: { '/x': { get: { responses: { 200: {} } } } } }
  assert.equal((await new Validator().validate(broken)).valid, false, 'the validator can refuse')
  const operations = operationsOf(document)
  const declared = adminRoutes(() => ({}))
  assert.deepEqual(
    operations.map(({ operation }) => operation.operationId).toSorted(),
    declared.map(({ operationId }) => operationId).toSorted(),
  )
  for (const { path, method, operation } of operations) {
    const route = declared.find(({ operationId }) => operationId === operation.operationId)
    assert.equal(method.toUpperCase(), route?.method)
    assert.equal(operation.security.length > 0, route?.need !== 'nothing', path)
    const named = [...path.matchAll(/\{([^}]+)\}/g)].map(([, name]) => name)
    const described = (operation.parameters ?? []).filter((one) => one.in === 'path').map(({ name }) => name)
    assert.deepEqual(described, named, path)
  }
})

test('every operation of the document answers as the document says, and sends all that its handler returned', async (t) => {
  const { node, document, returned } = await watchedNode(t)
  const { url } = node
  await ociClient(url, basic(ALICE)).pushImage('team/app', testImage(), 'v1')
  await numberOutbox(node.region)
  const operations = operationsOf(document)
  const ajv = new Ajv2020({ strict: false, formats: { 'date-time': /^\d{4}-\d\d-\d\dT[\d:.]+Z$/ } })
  ajv.addSchema({ $id: 'document', ...document } as object)
  const called = new Set<string>()
  const seen = new Map<string, Set<number>>()

  async function ask({ operationId, params = {}, query = '', body, text, as = ROOT, status }: Asked) {
    const found = operations.find(({ operation }) => operation.operationId === operationId)
    assert.ok(found, operationId)
    const { path, method, operation } = found
    const target = path.replaceAll(/\{([^}]+)\}/g, (_, name: string) =>
      encodeURIComponent(params[name] ?? ''),
    )
    const where = `${operationId} ${target}${query}`
    const answer = await fetch(url + target + query, {
      method: method.toUpperCase(),
      headers: as === 'nobody' ? {} : { Authorization: basic(as) },
      ...((body !== undefined || text !== undefined) && { body: text ?? JSON.stringify(body) }),
    })
    const sent = await answer.text()
    assert.equal(answer.status, status, `${where}: ${sent}`)
    const response = operation.responses[status]
    assert.ok(response, `${where}: ${status} is not in the document`)
    called.add(operationId)
    seen.set(operationId, (seen.get(operationId) ?? new Set()).add(status))
    for (const name of Object.keys(response.headers ?? {})) {
      // Only some refusals know how long to wait.
      if (name !== 'Retry-After') assert.ok(answer.headers.has(name), `${where}: no ${name}`)
    }
    if (response.content === undefined) {
      assert.equal(sent, '', where)
      return { answer, json: undefined }
    }
    const type = answer.headers.get('content-type') ?? ''
    assert.ok(Object.hasOwn(response.content, type), `${where}: ${type} is not in the document`)
    const pointer = ['paths', path, method, 'responses', String(status), 'content', type, 'schema']
      .map((part) => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1')))
      .join('/')
    const json: unknown = JSON.parse(sent)
    const validate = ajv.compile({ $ref: `document#/${pointer}` })
    assert.ok(validate(json), `${where}: ${JSON.stringify(validate.errors)} ${sent}`)
    assert.equal(
      validate({ errors: 5, openapi: 1 }) && validate('no object'),
      false,
      `${where} takes anything`,
    )
    if (status < 300) {
      assert.deepEqual(
        json,
        JSON.parse(JSON.stringify(returned())),
        `${where}: a field was dropped or changed`,
      )
      const head = await fetch(url + target + query, {
        method: 'HEAD',
        headers: { Authorization: basic(ROOT) },
      })
      if (method === 'get') {
        assert.equal(head.status, status, `HEAD of ${where}`)
        assert.equal(head.headers.get('content-type'), type, `HEAD of ${where}`)
      } else assert.ok([200, 405].includes(head.status), `HEAD of ${where}: ${head.status}`)
    }
    return { answer, json }
  }

  await ask({ operationId: 'getDocument', status: 200 })
  await ask({ operationId: 'getRegion', status: 200 })
  const { json: page } = await ask({ operationId: 'listEvents', query: '?limit=5', status: 200 })
  assert.equal((page as { events: unknown[] }).events.length, 5)
  await ask({ operationId: 'listEvents', query: '?limit=0', status: 400 })
  await ask({ operationId: 'listEventTypes', status: 200 })
  const type = 'dev.portolan.registry.push.v1'
  await ask({ operationId: 'getEventSchema', params: { type }, status: 200 })
  await ask({ operationId: 'getEventSchema', params: { type: 'nothing' }, status: 404 })

  const hook = { url: 'http://127.0.0.1:9/hook', types: ['push'], headers: { 'X-Token': 'planted' } }
  const { json: made, answer: making } = await ask({ operationId: 'createWebhook', body: hook, status: 201 })
  const { id, secret } = made as { id: string; secret: string }
  assert.equal(making.headers.get('location'), `/api/v1/webhooks/${id}`)
  assert.match(secret, /^whsec_/)
  await ask({ operationId: 'createWebhook', body: {}, status: 400 })
  await ask({ operationId: 'createWebhook', text: '{"url"', status: 400 })
  await ask({ operationId: 'createWebhook', text: ' '.repeat(65_537), status: 413 })
  await ask({ operationId: 'listWebhooks', status: 200 })
  const params = { id }
  await ask({ operationId: 'getWebhook', params, status: 200 })
  await ask({ operationId: 'changeWebhook', params, body: { ordered: true }, status: 200 })
  const { json: tested } = await ask({ operationId: 'testWebhook', params, status: 202 })
  await ask({ operationId: 'replayWebhook', params, body: { after: 'eu:1:0' }, status: 202 })
  await ask({ operationId: 'replayWebhook', params, body: { after: 'us:1:0' }, status: 400 })
  const { json: sent } = await ask({ operationId: 'listDeliveries', params, query: '?limit=10', status: 200 })
  assert.equal((sent as { deliveries: unknown[] }).deliveries.length, 2)
  await node.region.db.rows(
    statement(
      'test-park',
      `update webhook_delivery set state = 'parked', attempted_at = now(), status = 500, answer = 'no' returning id`,
    ),
  )
  await ask({ operationId: 'listDeliveries', params, query: '?state=parked', status: 200 })
  await ask({ operationId: 'redeliver', params, body: {}, status: 202 })
  const { delivery } = tested as { delivery: string }
  await ask({ operationId: 'redeliver', params, body: { id: delivery }, status: 404 })
  // A webhook that cannot be read has another shape.
  await node.region.db.rows(
    statement(
      'test-break',
      `update setting set deleted = true, value = null where kind = 'webhook' and field = 'url' returning id`,
    ),
  )
  await ask({ operationId: 'getWebhook', params, status: 200 })
  await ask({ operationId: 'listWebhooks', status: 200 })
  await ask({ operationId: 'replayWebhook', params, body: { after: 'eu:1:0' }, status: 202 })
  await ask({ operationId: 'deleteWebhook', params, status: 204 })
  for (const operationId of ['getWebhook', 'deleteWebhook', 'listDeliveries', 'testWebhook']) {
    await ask({ operationId, params: { id: NEVER }, status: 404 })
    await ask({ operationId, params: { id: 'nonsense' }, status: 404 })
  }
  await ask({ operationId: 'deleteRepository', params: { name: 'team/app' }, status: 202 })
  await ask({ operationId: 'deleteRepository', params: { name: 'team/app' }, status: 404 })
  await ask({ operationId: 'deleteRepository', params: { name: 'Not/A/Name' }, status: 400 })

  for (const { operation } of operations) {
    const { operationId, security } = operation
    const asked = { operationId, params: { ...params, name: 'a', type: 'x' }, body: undefined }
    if (security.length > 0) await ask({ ...asked, as: 'nobody', status: 401 })
    if (security.length === 1) await ask({ ...asked, as: ALICE, status: 403 })
    const statuses = [...(seen.get(operationId) ?? [])]
    assert.ok(
      statuses.some((status) => status < 300),
      `${operationId} was never seen to succeed`,
    )
  }
  assert.deepEqual(
    [...called].toSorted(),
    operations.map(({ operation }) => operation.operationId).toSorted(),
  )
})

test('a stream is what the document says, and its query is checked before it begins', async (t) => {
  const { node, document } = await watchedNode(t)
  const { content } = document.paths['/api/v1/events']?.get?.responses[200] ?? {}
  const abort = new AbortController()
  t.after(() => abort.abort())
  const stream = (query: string) =>
    fetch(`${node.url}/api/v1/events${query}`, {
      headers: { Accept: 'text/event-stream', Authorization: basic(ROOT) },
      signal: abort.signal,
    })
  const opened = await stream('')
  assert.equal(opened.status, 200)
  assert.ok(Object.hasOwn(content ?? {}, opened.headers.get('content-type') ?? ''))
  const refused = await stream('?limit=x')
  assert.deepEqual([refused.status, refused.headers.get('content-type')], [400, 'application/json'])
})

test('the README has the routes as they are', async () => {
  const path = join(import.meta.dirname, '../../../../services/api/admin/README.md')
  const [, table] = /<!-- routes -->\n([\s\S]*?)\n<!-- \/routes -->/.exec(await readFile(path, 'utf8')) ?? []
  const rows = adminRoutes(() => ({})).map(({ method, url, need, summary }) => {
    const shown = url.replaceAll(/[:*]([a-z]+)/g, '<$1>')
    return `| \`${method} ${shown}\` | ${need === 'nothing' ? 'anybody' : need} | ${summary} |`
  })
  assert.equal(table, ['| request | caller | what |', '|---|---|---|', ...rows].join('\n'))
})
