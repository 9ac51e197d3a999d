// Blobs that a repository links and only another region has: forwarded, verified, never stored.
// tests: shared/peers/peer-content.ts, shared/peers/peer-request.ts, shared/replication/read-through.ts

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { statement } from '#shared/db/statement.ts'
import { sha256 } from '../../../support/image.ts'
import { type TestNode, testNode } from '../../../support/region.ts'

const KEY = 'first-key-of-the-regions-0123456789'
const BLOB = Buffer.alloc(300_000, 'portolan')
const DIGEST = sha256(BLOB)
const EMPTY = sha256(Buffer.alloc(0))
const PATH = `/v2/team/app/blobs/${DIGEST}`

const eu = (t: TestContext) => testNode(t, { env: { PORTOLAN_PEER_KEYS: KEY } })

/** A region whose repository links the blobs but has none of their bytes. */
async function us(t: TestContext, peers: string, digests: readonly string[] = [DIGEST]): Promise<TestNode> {
  const node = await testNode(t, {
    env: { PORTOLAN_REGION: 'us', PORTOLAN_PEER_KEYS: KEY, PORTOLAN_PEERS: peers },
  })
  const { db } = node.region
  await upload(node, Buffer.from('something else'))
  for (const digest of digests) await link(db, digest)
  return node
}

const makeLink = statement<never>(
  'test-link',
  `insert into membership (repository_id, kind, digest, media_type, alive_h, alive_origin)
   select id, 'blob', :digest, 'application/octet-stream', hlc_now(), 'eu' from repository where name = 'team/app'`,
)

async function link(db: TestNode['region']['db'], digest: string): Promise<void> {
  await db.rows(makeLink, { digest })
}

async function upload(node: TestNode, bytes: Buffer): Promise<void> {
  const url = `${node.url}/v2/team/app/blobs/uploads/?digest=${sha256(bytes)}`
  const answer = await fetch(url, { method: 'POST', body: new Uint8Array(bytes) })
  assert.equal(answer.status, 201)
}

/** A peer that serves blobs with the given listener. */
async function peer(t: TestContext, answer: RequestListener): Promise<string> {
  const server = createServer(answer)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

test('a linked blob comes from the region that has it, whole and proved; the range is not honoured', async (t) => {
  const home = await eu(t)
  await upload(home, BLOB)
  const away = await us(t, `eu=${home.url}`)
  for (const headers of [{}, { Range: 'bytes=5-10' }]) {
    const answer = await fetch(away.url + PATH, { headers })
    assert.equal(answer.status, 200)
    assert.equal(answer.headers.get('docker-content-digest'), DIGEST)
    assert.equal(answer.headers.get('accept-ranges'), null)
    assert.ok(Buffer.from(await answer.arrayBuffer()).equals(BLOB))
  }
  assert.equal((await fetch(away.url + PATH, { method: 'HEAD' })).status, 404, 'a push must bring the bytes')
})

test('a blob that the repository does not link is asked of nobody', async (t) => {
  let asked = 0
  const url = await peer(t, (_request, response) => {
    asked++
    response.end()
  })
  const away = await us(t, `eu=${url}`, [])
  assert.equal((await fetch(away.url + PATH)).status, 404)
  assert.equal(asked, 0)
})

test('a blob that its region deleted is not there; one out of reach may be later', async (t) => {
  const home = await eu(t)
  const away = await us(t, `eu=${home.url}`)
  assert.equal((await fetch(away.url + PATH)).status, 404)
  const alone = await us(t, `eu=http://127.0.0.1:1`)
  const answer = await fetch(alone.url + PATH)
  assert.equal(answer.status, 503)
  assert.equal(answer.headers.get('retry-after'), '5')
})

test('the region that has it answers, whatever the others do', async (t) => {
  const home = await eu(t)
  await upload(home, BLOB)
  const silent = await peer(t, () => {})
  const lying = await peer(t, (_request, response) => response.writeHead(500).end('<html>'))
  const away = await us(t, `ap=${silent},eu=${home.url},sa=${lying},af=http://127.0.0.1:1`)
  const answer = await fetch(away.url + PATH)
  assert.ok(Buffer.from(await answer.arrayBuffer()).equals(BLOB))
})

const wrong = Buffer.from(BLOB)
wrong[17] = 0
const hostile: Record<string, RequestListener> = {
  'other bytes': (_request, response) => response.end(wrong),
  'too few bytes': (_request, response) => {
    response.writeHead(200, { 'Content-Length': BLOB.length })
    response.write(BLOB.subarray(0, 1_000), () => response.destroy())
  },
  'nothing, announced as all of it': (_request, response) =>
    response.writeHead(200, { 'Content-Length': 0 }).end(),
  'bytes without a length': (_request, response) => {
    response.write(BLOB)
    response.end()
  },
}
for (const [what, answer] of Object.entries(hostile)) {
  test(`a peer that sends ${what} never makes a blob that looks whole`, async (t) => {
    const away = await us(t, `eu=${await peer(t, answer)}`)
    const got = await fetch(away.url + PATH)
      .then(async (response) => (response.ok ? Buffer.from(await response.arrayBuffer()) : undefined))
      .catch(() => undefined)
    assert.ok(got === undefined || got.equals(BLOB))
    assert.equal((await fetch(`${away.url}/v2/`)).status, 200, 'and nothing else is harmed')
  })
}

test('an empty blob has its digest too', async (t) => {
  const home = await eu(t)
  await upload(home, Buffer.alloc(0))
  const away = await us(t, `eu=${home.url}`, [EMPTY])
  const answer = await fetch(`${away.url}/v2/team/app/blobs/${EMPTY}`)
  assert.equal(answer.status, 200)
  assert.equal((await answer.arrayBuffer()).byteLength, 0)
})

test('without peers nothing is asked, and nothing is read for it', async (t) => {
  const node = await testNode(t)
  await upload(node, Buffer.from('x'))
  await link(node.region.db, DIGEST)
  assert.equal((await fetch(node.url + PATH)).status, 404)
})
