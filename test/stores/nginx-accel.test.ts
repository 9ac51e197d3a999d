// Large blobs sent by a real nginx (PORTOLAN_REDIRECT=accel) with the documented configuration: complete, by range and
// HEAD, from files and from a real S3 server. Only nginx learns where the bytes are.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFile, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { statement } from '#shared/db/statement.ts'
import { sha256 } from '../support/image.ts'
import { type OciClient, ociClient } from '../support/oci-client.ts'
import { missing } from '../support/parts/command.ts'
import { startNginx } from '../support/parts/nginx.ts'
import { startObjectStore, withoutStore } from '../support/parts/object-stores.ts'
import { freePort } from '../support/portolan-process.ts'
import { type TestNode, testNode } from '../support/region.ts'

const MIB = 1024 * 1024
const TOKEN = 'Bearer what-a-client-sends'
const snippet = await readFile(join(import.meta.dirname, '../../infra/nginx/portolan.conf'), 'utf8')

const keyOf = statement<{ key: string }>('test-key-of', 'select key from blob where digest = :digest')

interface Behind {
  readonly node: TestNode
  readonly direct: OciClient
  readonly behind: OciClient
}

async function nodeBehindNginx(
  t: TestContext,
  { env, storeUrl = 'http://127.0.0.1:1' }: { env?: Record<string, string>; storeUrl?: string },
): Promise<Behind> {
  const node = await testNode(t, {
    env: { PORTOLAN_REDIRECT: 'accel', PORTOLAN_TRUSTED_PROXIES: '127.0.0.1', ...env },
  })
  const host = `127.0.0.1:${await freePort()}`
  const url = `http://${host}`
  const replaced = Object.entries({
    '127.0.0.1:8080': host,
    'http://127.0.0.1:5000': node.url,
    '/var/lib/portolan/eu/blobs/': join(node.region.config.dataDir, 'eu', 'blobs/'),
    'https://images.s3.eu-west-1.amazonaws.com': storeUrl,
  }).reduce((text, [from, to]) => {
    assert.ok(text.includes(from), from)
    return text.replace(from, to)
  }, snippet)
  await startNginx(t, { url, http: () => replaced })
  return { node, direct: ociClient(node.url), behind: ociClient(url, TOKEN) }
}

/** Checks the responses through nginx, and that the bytes did not pass through Portolan. */
async function pullsThroughNginx({ node, direct, behind }: Behind): Promise<void> {
  const bytes = randomBytes(2 * MIB)
  const digest = sha256(bytes)
  await direct.pushBlob('a/b', bytes)
  const path = `/v2/a/b/blobs/${digest}`
  const sent = () => {
    const lines = node.logLines.map((line) => JSON.parse(line))
    const pulls = lines.filter(({ method, reference }) => method === 'GET' && reference === digest)
    assert.ok(pulls.length > 3)
    return pulls.reduce((sum, { bytes: body }) => sum + body, 0)
  }
  const facts = ({ status, headers }: { status: number; headers: Headers }) => [
    status,
    headers.get('content-length'),
    headers.get('docker-content-digest'),
    headers.get('etag'),
    headers.get('content-type'),
    headers.get('accept-ranges'),
    headers.get('x-accel-redirect'),
  ]
  const about = [digest, `"${digest}"`, 'application/octet-stream', 'bytes', null]
  const whole = await behind.get(path)
  assert.deepEqual(facts(whole), [200, String(bytes.length), ...about])
  assert.equal(whole.headers.get('content-disposition'), 'attachment')
  assert.equal(whole.headers.get('content-security-policy'), 'sandbox')
  assert.match(whole.headers.get('cache-control') ?? '', /immutable/)
  assert.ok(whole.body.equals(bytes))
  for (const [range, from, to] of [
    ['bytes=100-199', 100, 200],
    ['bytes=2000000-', 2_000_000, bytes.length],
    ['bytes=-5', bytes.length - 5, bytes.length],
  ] as const) {
    const part = await behind.get(path, { Range: range })
    assert.equal(part.status, 206, range)
    assert.equal(part.headers.get('content-range'), `bytes ${from}-${to - 1}/${bytes.length}`)
    assert.ok(part.body.equals(bytes.subarray(from, to)), range)
  }
  assert.equal(sent(), 0, 'nginx sent all bytes')
  const head = await behind.request('HEAD', path)
  assert.deepEqual(facts(head), [200, String(bytes.length), ...about])
  // Portolan handles requests that nginx would interpret differently. The responses equal those without nginx.
  for (const headers of [
    { Range: 'bytes=0-9,20-29' },
    { Range: 'bytes=99999999-' },
    { Range: 'nonsense' },
    { Range: 'bytes=0-9', 'If-Range': `"${digest}"` },
    { Range: 'bytes=0-9', 'If-Range': '"another"' },
    { 'If-None-Match': `"${digest}"` },
  ]) {
    const [through, own] = [await behind.get(path, headers), await direct.get(path, headers)]
    assert.equal(through.status, own.status, JSON.stringify(headers))
    assert.equal(through.headers.get('content-range'), own.headers.get('content-range'))
    assert.equal(through.body.length, own.body.length)
  }
  const small = randomBytes(1000)
  await direct.pushBlob('a/b', small)
  assert.ok((await behind.get(`/v2/a/b/blobs/${sha256(small)}`)).body.equals(small))
  assert.equal((await behind.get(`/v2/other/blobs/${digest}`)).status, 404, 'not in another repository')
  assert.doesNotMatch(node.logLines.join(''), /X-Amz|portolan-blobs/)
}

describe('nginx sends large blobs', { skip: missing('nginx') }, () => {
  test('from files', async (t) => {
    const at = await nodeBehindNginx(t, {})
    await pullsThroughNginx(at)
    const { node, direct, behind } = at
    const lost = randomBytes(2 * MIB)
    await direct.pushBlob('a/b', lost)
    const [key = ''] = (await node.region.db.rows(keyOf, { digest: sha256(lost) })).map(({ key }) => key)
    const internal = `/portolan-blobs/file/${key.slice(0, 2)}/${key}`
    assert.equal((await behind.get(internal)).status, 404, 'clients cannot request the internal path')
    await rm(join(node.region.config.dataDir, 'eu', 'blobs', key.slice(0, 2), key))
    const answer = await behind.get(`/v2/a/b/blobs/${sha256(lost)}`)
    assert.equal(answer.status, 404)
    assert.match(answer.body.toString(), /BLOB_UNKNOWN/, 'detected by Portolan, not by nginx')
  })

  test('from an object store, which never sees the client’s token', {
    skip: withoutStore('minio'),
  }, async (t) => {
    const server = await startObjectStore('minio')
    t.after(() => server[Symbol.asyncDispose]())
    const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...env } = server.env
    Object.assign(process.env, { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY })
    await pullsThroughNginx(await nodeBehindNginx(t, { env, storeUrl: server.url }))
  })

  test('Portolan serves a client that bypasses nginx and never reveals the path, despite forged headers', async (t) => {
    const { node, direct } = await nodeBehindNginx(t, {})
    const bytes = randomBytes(2 * MIB)
    await direct.pushBlob('a/b', bytes)
    const path = `/v2/a/b/blobs/${sha256(bytes)}`
    const get = (localAddress: string) =>
      new Promise<{ headers: Record<string, unknown>; length: number }>((resolve, reject) => {
        const claims = { 'X-Forwarded-For': '127.0.0.1', Forwarded: 'for=127.0.0.1', Via: 'nginx' }
        const asking = request(`${node.url}${path}`, { localAddress, headers: claims }, (answer) => {
          let length = 0
          answer.on('data', (chunk: Buffer) => {
            length += chunk.length
          })
          answer.on('end', () => resolve({ headers: answer.headers, length }))
        })
        asking.on('error', reject).end()
      })
    const past = await get('127.0.0.2')
    assert.equal(past.length, bytes.length)
    assert.equal(past.headers['x-accel-redirect'], undefined)
    const trusted = await get('127.0.0.1')
    assert.equal(trusted.length, 0)
    assert.match(
      String(trusted.headers['x-accel-redirect']),
      /^\/portolan-blobs\/file\/[0-9a-f]{2}\/[0-9a-f]{32}$/,
    )
  })
})
