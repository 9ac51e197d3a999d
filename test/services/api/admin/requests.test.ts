// Requests to /api/v1: its schemas decide what is valid, its errors name the field, and its edge is that of the other
// surfaces.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ALICE, accountsNode, basic, ROOT } from '../../../support/accounts.ts'
import { testImage } from '../../../support/image.ts'
import { numberOutbox } from '../../../support/log-writer.ts'
import { ociClient } from '../../../support/oci-client.ts'
import { rawHttp } from '../../../support/raw-http.ts'
import { testNode } from '../../../support/region.ts'

const HOOK = 'https://hook.example/'
const NEVER = '00000000-0000-0000-0000-000000000000'

test('what a schema refuses is REQUEST_INVALID with a sentence that names the field and not its value', async (t) => {
  const { url, logLines } = await testNode(t)
  for (const [method, target, body, sentence] of [
    ['GET', '/events?limit=x', undefined, /^limit must be an integer$/],
    ['GET', '/events?limit=', undefined, /^limit must be an integer$/],
    ['GET', '/events?limit=1.5', undefined, /^limit must be an integer$/],
    ['GET', '/events?limit=1001', undefined, /^limit must be <= 1000$/],
    ['GET', `/events?after=${'9'.repeat(61)}`, undefined, /^after must NOT have more than 60 characters$/],
    ['GET', `/webhooks/${NEVER}/deliveries?state=planted`, undefined, /^state must be one of waiting, deliv/],
    ['GET', `/webhooks/${NEVER}/deliveries?before=-1`, undefined, /^before must be >= 0$/],
    ['POST', '/webhooks', '{}', /^url is missing$/],
    ['POST', '/webhooks', '[]', /^the body must be an object$/],
    ['POST', '/webhooks', '"text"', /^the body must be an object$/],
    ['POST', '/webhooks', undefined, /^the body is invalid: not JSON$/],
    ['POST', '/webhooks', '{"url":"x","url":"y"}', /^the body is invalid: an object has a duplicate key/],
    ['POST', '/webhooks', `{"url":"${HOOK}","ordered":"true"}`, /^ordered must be true or false$/],
    ['POST', '/webhooks', `{"url":"${HOOK}","types":["planted!"]}`, /^types\.0 must match pattern/],
    ['POST', '/webhooks', `{"url":"${HOOK}","headers":{"A":5}}`, /^headers\.A must be a string$/],
    ['POST', '/webhooks', `{"url":"${HOOK}","__proto__":{}}`, /^__proto__ is not a known field$/],
    ['PATCH', `/webhooks/${NEVER}`, '{"previousSecret":null}', /^previousSecret is not a known field$/],
    ['POST', `/webhooks/${NEVER}/redeliver`, '{"id":5}', /^id must be a string$/],
    ['POST', `/webhooks/${NEVER}/redeliver`, '{"from":"5"}', /^from must be an integer$/],
    ['POST', `/webhooks/${NEVER}/redeliver`, '{"status":"parked"}', /^status is not a known field$/],
  ] as const) {
    const answer = await fetch(`${url}/api/v1${target}`, { method, ...(body !== undefined && { body }) })
    const text = await answer.text()
    const { errors } = JSON.parse(text) as { errors: { code: string; message: string }[] }
    assert.deepEqual(
      [answer.status, errors[0]?.code],
      [400, 'REQUEST_INVALID'],
      `${method} ${target} ${body}`,
    )
    assert.match(errors[0]?.message ?? '', sentence)
    assert.doesNotMatch(text, /planted/)
    assert.equal(answer.headers.get('content-type'), 'application/json')
  }
  assert.deepEqual(
    logLines.filter((line) => !line.includes('"level":"info"')),
    [],
    'bad input is no failure of ours',
  )
})

test('a path that its schema refuses has the code of what it names', async (t) => {
  const { url } = await testNode(t)
  for (const [method, target, status, code] of [
    ['GET', '/webhooks/nonsense', 404, 'NOT_FOUND'],
    ['DELETE', '/webhooks/%2e%2e', 404, 'NOT_FOUND'],
    ['GET', '/webhooks/%zz', 404, 'NOT_FOUND'],
    ['DELETE', `/repositories/${'a'.repeat(300)}`, 400, 'NAME_INVALID'],
    ['DELETE', '/repositories/', 400, 'NAME_INVALID'],
    ['DELETE', '/repositories/A', 400, 'NAME_INVALID'],
  ] as const) {
    const answer = await fetch(`${url}/api/v1${target}`, { method })
    const { errors } = (await answer.json()) as { errors: { code: string }[] }
    assert.deepEqual([answer.status, errors[0]?.code], [status, code], target)
  }
})

test('queries are read as everywhere: unknown names are ignored, the last value counts, a plus is a plus', async (t) => {
  const node = await testNode(t)
  await ociClient(node.url).pushImage('team/app', testImage(), 'v1')
  await numberOutbox(node.region)
  const ask = async (query: string) => {
    const answer = await fetch(`${node.url}/api/v1/events?${query}`)
    return { status: answer.status, body: (await answer.json()) as { events: object[] } }
  }
  assert.equal((await ask('colour=red&limit=1')).body.events.length, 1)
  assert.equal((await ask('limit=1&limit=2')).body.events.length, 2)
  assert.equal((await ask('limit=%31')).body.events.length, 1)
  assert.equal((await ask('repository=team%2Fapp&limit=3')).body.events.length, 3)
  assert.equal((await ask('repository=team+app')).body.events.length, 0)
  assert.equal((await ask('repository=%zz')).status, 400)
  assert.equal((await ask('a&'.repeat(65))).status, 414)
  assert.equal((await ask('__proto__=1&constructor=2&limit=1')).body.events.length, 1)
})

test('the name of a repository is taken with its slashes and percent-encoded; no other path may be spelt in another way', async (t) => {
  const { url, port } = await testNode(t)
  const client = ociClient(url)
  for (const path of ['team/app', 'team%2Fapp', 'team%2fapp']) {
    await client.pushImage('team/app', testImage(), 'v1')
    const { status, headers } = await client.request('DELETE', `/api/v1/repositories/${path}`)
    assert.equal(status, 202, path)
    assert.match(headers.get('portolan-position') ?? '', /^eu:1:o\d+$/)
  }
  for (const target of [
    '/%61pi/v1/region',
    '/api/v1/regio%6e',
    '/api/v1//region',
    '/api/v1/region/',
    '/api/v1/%77ebhooks/x',
    '/API/v1/region',
    '/api/v1/schemas/a%2Eb.jso%6E',
  ]) {
    const request = `GET ${target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`
    assert.deepEqual((await rawHttp(port, [request])).statuses, [404], target)
  }
})

test('who may not is refused before the body is asked for; who may is asked for it', async (t) => {
  const { port, logLines } = await accountsNode(t)
  const body = JSON.stringify({ url: HOOK })
  const post = (target: string, authorization: string) =>
    `POST ${target} HTTP/1.1\r\nHost: h\r\n${authorization}Expect: 100-continue\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n`
  const as = (account: { name: string; password: string }) => `Authorization: ${basic(account)}\r\n`
  for (const [target, authorization, status] of [
    ['/api/v1/webhooks', '', 401],
    ['/api/v1/webhooks', as(ALICE), 403],
    ['/api/v1/nothing', as(ROOT), 404],
    ['/api/v1/region', as(ROOT), 405],
    ['/api/v1/region', '', 405],
  ] as const) {
    const { statuses, text } = await rawHttp(port, [post(target, authorization)])
    assert.deepEqual(statuses, [status], target)
    assert.doesNotMatch(text, /100 Continue/, target)
  }
  const { statuses, text } = await rawHttp(port, [post('/api/v1/webhooks', as(ROOT)), body])
  assert.deepEqual(statuses, [201])
  assert.match(text, /^HTTP\/1\.1 100 Continue\r\n/)
  assert.ok(logLines.some((line) => line.includes('"route":"webhooks"') && line.includes('"actor":"root"')))
})

test('a body is bounded and JSON, whatever its type says; a route that takes none reads none', async (t) => {
  const { url, port } = await testNode(t)
  for (const type of ['application/json', 'application/x-www-form-urlencoded', 'nonsense', '']) {
    const answer = await fetch(`${url}/api/v1/webhooks`, {
      method: 'POST',
      headers: { 'Content-Type': type },
      body: JSON.stringify({ url: HOOK }),
    })
    assert.equal(answer.status, 201, type)
  }
  const chunked = `POST /api/v1/webhooks HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n`
  const chunk = `4000\r\n${' '.repeat(0x4000)}\r\n`
  const { statuses, text } = await rawHttp(port, [chunked, chunk, chunk, chunk, chunk, chunk])
  assert.deepEqual(statuses, [413])
  assert.match(text, /\r\nConnection: close\r\n[\s\S]*larger than 65536 bytes/)
  const unread = await rawHttp(port, [
    'DELETE /api/v1/repositories/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n',
  ])
  assert.deepEqual(unread.statuses, [404])
  assert.match(unread.text, /\r\nConnection: close\r\n/)
})

test('HEAD is GET without a body', async (t) => {
  const { url } = await testNode(t)
  for (const path of ['region', 'events', 'schemas', 'webhooks', 'openapi.json', `webhooks/${NEVER}`]) {
    const [got, head] = await Promise.all(
      ['GET', 'HEAD'].map((method) => fetch(`${url}/api/v1/${path}`, { method })),
    )
    assert.equal(head?.status, got?.status, path)
    for (const name of ['content-type', 'content-length', 'cache-control', 'x-content-type-options']) {
      assert.equal(head?.headers.get(name), got?.headers.get(name), `${name} of ${path}`)
    }
    assert.equal(await head?.text(), '')
  }
})
