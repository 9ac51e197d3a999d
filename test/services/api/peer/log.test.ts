// The log as other regions read it, and the log reader that uses it: the contract of a Bus over HTTP.
// tests: shared/db/peer-readers.ts, shared/peers/remote-log-pages.ts

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import bcrypt from 'bcrypt'
import { signPeerRequest } from '#shared/auth/peer-signature.ts'
import { createLogBus } from '#shared/bus/log-bus.ts'
import { trimEvents } from '#shared/db/event-log.ts'
import { peerReadersBehind } from '#shared/db/peer-readers.ts'
import { SHARDS } from '#shared/events/event-id.ts'
import { PeerError } from '#shared/peers/peer-request.ts'
import { remoteLogPages } from '#shared/peers/remote-log-pages.ts'
import { busContract } from '../../../contract/bus.ts'
import { fillLog } from '../../../support/log-writer.ts'
import { testDirectory, testNode } from '../../../support/region.ts'

const KEY = 'first-key-of-the-regions-0123456789'
const everything = Array.from({ length: SHARDS }, (_, shard) => ({ shard, epoch: 1, seq: 0 }))

async function setUp(t: TestContext, env: Record<string, string> = {}) {
  const node = await testNode(t, { env: { PORTOLAN_PEER_KEYS: KEY, ...env } })
  const pages = (options: { key?: string; to?: string; waitSeconds?: number } = {}) =>
    remoteLogPages({ url: node.url, from: 'us', to: 'eu', key: KEY, waitSeconds: 0, ...options })
  return { node, pages }
}

busContract('the log of another region', async (t) => {
  const { node, pages } = await setUp(t)
  const another = () => createLogBus({ pages: pages(), pollMs: 10 })
  return { bus: another(), another, emit: (options) => fillLog(node.region, options) }
})

test('A14: without a signature, with an account, with a wrong key: refused, before anything is looked at', async (t) => {
  const file = join(await testDirectory(t), 'htpasswd')
  await writeFile(file, `admin:${bcrypt.hashSync('secret', 4)}\n`)
  const { node, pages } = await setUp(t, {
    PORTOLAN_AUTH: 'accounts',
    PORTOLAN_HTPASSWD_FILE: file,
    PORTOLAN_ADMINS: 'admin',
  })
  const target = '/peer/v1/log?after=0:1:0'
  for (const authorization of [undefined, `Basic ${btoa('admin:secret')}`, 'Bearer x']) {
    const headers = authorization === undefined ? {} : { Authorization: authorization }
    const answer = await fetch(node.url + target, { headers })
    assert.equal(answer.status, 401, authorization)
  }
  await assert.rejects(pages({ key: 'x'.repeat(40) }).page(everything), /answered 401.*key is unknown/)
  await assert.rejects(pages({ to: 'asia' }).page(everything), /answered 401.*for region asia/)
  const headers = signPeerRequest(
    { method: 'GET', target, from: 'us', to: 'eu' },
    { key: KEY, nowSeconds: Math.floor(Date.now() / 1_000), nonce: 'n'.repeat(24) },
  )
  assert.equal((await fetch(node.url + target, { headers })).status, 200)
  assert.equal((await fetch(node.url + target, { headers })).status, 401, 'the same request again')
})

test('a region without keys has no peers', async (t) => {
  const node = await testNode(t)
  assert.equal((await fetch(`${node.url}/peer/v1/log?after=0:1:0`)).status, 404)
})

test('what is asked wrongly is told', async (t) => {
  const { node } = await setUp(t)
  const queries = [
    '',
    'after=',
    'after=8:1:0',
    'after=0:0:1',
    'after=0:1:0,0:1:5',
    'after=0:1:0&wait=26',
    'after=0:1:0&wait=x',
    `after=${'0:1:0,'.repeat(200)}0:1:0`,
  ]
  for (const [index, query] of queries.entries()) {
    const target = `/peer/v1/log?${query}`
    const headers = signPeerRequest(
      { method: 'GET', target, from: 'us', to: 'eu' },
      { key: KEY, nowSeconds: Math.floor(Date.now() / 1_000), nonce: `nonce${index}`.padEnd(24, 'x') },
    )
    assert.equal((await fetch(node.url + target, { headers })).status, 400, query)
  }
})

test('a reader may wait: it is answered when something comes, and not before its time is over', async (t) => {
  const { node, pages } = await setUp(t)
  const waiting = pages({ waitSeconds: 25 }).page(everything)
  let answered = false
  void waiting.then(() => {
    answered = true
  })
  await new Promise((resolve) => setTimeout(resolve, 300))
  assert.equal(answered, false)
  await fillLog(node.region, { count: 1 })
  assert.equal((await waiting).events.length, 1)
  const at = [{ shard: 1, epoch: 1, seq: 1 }]
  assert.deepEqual(await pages({ waitSeconds: 1 }).page(at), { events: [], gone: [] })
})

test('where a region stands is known, keeps the log for it, and a region that comes too late is told', async (t) => {
  const { node, pages } = await setUp(t)
  const { db } = node.region
  await fillLog(node.region, { count: 80 })
  await pages().page(everything.map((at) => ({ ...at, seq: 4 })))
  assert.deepEqual(
    (await peerReadersBehind(db)).map(({ reader, behind }) => ({ reader, behind })),
    [{ reader: 'peer:us', behind: 48 }],
  )
  // A request that fills a gap does not show the position of the region.
  await pages().page([{ shard: 0, epoch: 1, seq: 9 }])
  assert.equal((await peerReadersBehind(db))[0]?.behind, 48)
  const trim = () => trimEvents(db, { retentionSeconds: 0, readerSeconds: 60, limit: 1_000 })
  assert.equal(await trim(), 32)
  const { events, gone } = await pages().page([
    { shard: 0, epoch: 1, seq: 2 },
    { shard: 1, epoch: 1, seq: 4 },
  ])
  assert.deepEqual(gone, [{ shard: 0, epoch: 1, seq: 4 }])
  assert.equal(events.length, 6)
  assert.equal(await pages().lag(everything.map((at) => ({ ...at, seq: 10 }))), 0)
})

test('a peer that answers wrongly, too much, elsewhere or never is an error, not an empty log', async (t) => {
  const bodies: Record<
    string,
    (index: number) => [status: number, body: string, headers?: Record<string, string>]
  > = {
    html: () => [200, '<html>'],
    empty: () => [200, '{}'],
    other: () => [200, JSON.stringify({ origin: 'asia', events: [], gone: [], behind: 0 })],
    foreign: () => [
      200,
      JSON.stringify({ origin: 'eu', events: [{ id: 'asia:1:0:1' }], gone: [], behind: 0 }),
    ],
    error: () => [500, 'no'],
    elsewhere: () => [302, '', { Location: 'http://127.0.0.1:1/' }],
    endless: () => [200, 'x'.repeat(33 * 1024 * 1024)],
  }
  const server = createServer((request, response) => {
    const [status, body, headers] = bodies[request.url?.split('/')[1] ?? '']?.(0) ?? [404, '']
    response.writeHead(status, headers).end(body)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  t.after(() => server.close())
  t.after(() => server.closeAllConnections())
  const { port } = server.address() as AddressInfo
  for (const name of Object.keys(bodies)) {
    const pages = remoteLogPages({
      url: `http://127.0.0.1:${port}/${name}`,
      from: 'us',
      to: 'eu',
      key: KEY,
      waitSeconds: 0,
    })
    await assert.rejects(pages.page(everything), PeerError, name)
  }
  const nobody = remoteLogPages({ url: 'http://127.0.0.1:1', from: 'us', to: 'eu', key: KEY, waitSeconds: 0 })
  await assert.rejects(nobody.page(everything), /eu could not be reached/)
})

test('a reader that waits ends with the process', async (t) => {
  const { node, pages } = await setUp(t)
  const waiting = pages({ waitSeconds: 25 })
    .page(everything)
    .catch((error: unknown) => error)
  await new Promise((resolve) => setTimeout(resolve, 100))
  const startMs = performance.now()
  await node.region[Symbol.asyncDispose]()
  await waiting
  assert.ok(performance.now() - startMs < 25_000, 'before its wait is over')
})
