import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { truncate } from 'node:fs/promises'
import { connect } from 'node:net'
import { test } from 'node:test'
import { fileOf } from '../../../support/blob-harm.ts'
import { eventually } from '../../../support/eventually.ts'
import { sha256 } from '../../../support/image.ts'
import { ociClient } from '../../../support/oci-client.ts'
import { testNode } from '../../../support/region.ts'

test('ranges of small and large blobs are exact, and a refusal has its own length', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  for (const size of [10_000, 3_000_000]) {
    const bytes = randomBytes(size)
    const path = `/v2/a/blobs/${sha256(bytes)}`
    await client.pushBlob('a', bytes)
    for (const [range, start, end] of [
      ['500-1499', 500, 1_499],
      ['500-', 500, size - 1],
      ['-500', size - 500, size - 1],
      [`5000-${size * 2}`, 5_000, size - 1],
    ] as const) {
      const got = await client.get(path, { Range: `bytes=${range}` })
      assert.equal(got.status, 206)
      assert.equal(got.headers.get('content-range'), `bytes ${start}-${end}/${size}`)
      assert.equal(got.headers.get('content-length'), String(end - start + 1))
      assert.ok(got.body.equals(bytes.subarray(start, end + 1)))
    }
    const refused = await client.get(path, { Range: `bytes=${size}-` })
    assert.equal(refused.status, 416)
    assert.equal(refused.headers.get('content-range'), `bytes */${size}`)
    assert.equal(refused.headers.get('content-length'), String(refused.body.length))
    const several = await client.get(path, { Range: 'bytes=0-1,5-9' })
    assert.equal(several.status, 206)
    const boundary = /^multipart\/byteranges; boundary=([a-z0-9]+)$/.exec(
      several.headers.get('content-type') ?? '',
    )?.[1]
    assert.ok(boundary)
    const text = several.body.toString('latin1')
    assert.equal(text.split(`--${boundary}`).length, 4)
    assert.ok(
      text.includes(`Content-Range: bytes 0-1/${size}\r\n\r\n${bytes.subarray(0, 2).toString('latin1')}\r\n`),
    )
    assert.ok(
      text.includes(
        `Content-Range: bytes 5-9/${size}\r\n\r\n${bytes.subarray(5, 10).toString('latin1')}\r\n`,
      ),
    )
    assert.equal((await client.get(path, { Range: 'bytes=0-1', 'If-Range': '"other"' })).status, 200)
    assert.equal((await client.get(path, { 'If-None-Match': `"${sha256(bytes)}"` })).status, 304)
    const head = await client.request('HEAD', path)
    assert.equal(head.headers.get('content-length'), String(size))
    assert.equal(head.headers.get('accept-ranges'), 'bytes')
  }
})

test('I8, I9: what was uploaded never runs in a browser, and shared caches never keep it', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  await client.pushBlob('a', Buffer.from('<script>alert(1)</script>'))
  const { headers } = await client.get(`/v2/a/blobs/${sha256('<script>alert(1)</script>')}`)
  assert.equal(headers.get('x-content-type-options'), 'nosniff')
  assert.equal(headers.get('content-disposition'), 'attachment')
  assert.equal(headers.get('content-security-policy'), 'sandbox')
  assert.match(headers.get('cache-control') ?? '', /^private\b/)
  const missing = await client.get(`/v2/a/blobs/${sha256('missing')}`)
  assert.equal(missing.headers.get('cache-control'), 'no-store')
  assert.equal(missing.headers.get('access-control-allow-origin'), null)
})

test('a file that is cut short while it is read breaks the connection instead of ending early', async (t) => {
  const node = await testNode(t)
  const bytes = randomBytes(40_000_000)
  await ociClient(node.url).pushBlob('a', bytes)
  const socket = connect(node.port, '127.0.0.1')
  t.after(() => socket.destroy())
  let received = 0
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  socket.on('error', () => {})
  socket.write(`GET /v2/a/blobs/${sha256(bytes)} HTTP/1.1\r\nHost: h\r\n\r\n`)
  received += (await new Promise<Buffer>((resolve) => socket.once('data', resolve))).length
  // A client that does not read stops the server long before the end.
  socket.pause()
  await truncate(await fileOf(node, bytes), 20_000_000)
  socket.on('data', (chunk: Buffer) => {
    received += chunk.length
  })
  socket.resume()
  await closed
  assert.ok(received > 1_000_000 && received < bytes.length, String(received))
})

test('D3: a reader that stands still is cut by the minimum rate', async (t) => {
  const { url, port, logLines } = await testNode(t, {
    env: { PORTOLAN_RATE_WINDOW_SECONDS: '1', PORTOLAN_RATE_BYTES_PER_SECOND_MIN: '1MiB' },
  })
  const bytes = randomBytes(30_000_000)
  await ociClient(url).pushBlob('a', bytes)
  const socket = connect(port, '127.0.0.1')
  t.after(() => socket.destroy())
  socket.on('error', () => {})
  socket.pause()
  socket.write(`GET /v2/a/blobs/${sha256(bytes)} HTTP/1.1\r\nHost: h\r\n\r\n`)
  const line = await eventually('the request to end', () =>
    logLines.find((text) => text.includes('"method":"GET"')),
  )
  const { bytes: sent } = JSON.parse(line) as { bytes: number }
  assert.ok(sent < bytes.length, 'cut long before the end')
})

test('a client that goes away stops the read, and others are served', async (t) => {
  const { url, port } = await testNode(t)
  const client = ociClient(url)
  const bytes = randomBytes(20_000_000)
  await client.pushBlob('a', bytes)
  for (let count = 0; count < 20; count++) {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    socket.write(`GET /v2/a/blobs/${sha256(bytes)} HTTP/1.1\r\nHost: h\r\n\r\n`)
    await new Promise((once) => socket.once('data', once))
    socket.destroy()
  }
  assert.equal(sha256((await client.get(`/v2/a/blobs/${sha256(bytes)}`)).body), sha256(bytes))
})

test('manifests known by digest can be had as blobs, and the digest is the one asked for', async (t) => {
  const { url } = await testNode(t)
  const client = ociClient(url)
  const manifest = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [] }),
  )
  await client.pushManifest('a', 'v1', {
    bytes: manifest,
    digest: sha256(manifest),
    mediaType: 'application/vnd.oci.image.index.v1+json',
  })
  const got = await client.get(`/v2/a/blobs/${sha256(manifest)}`)
  assert.equal(got.status, 200)
  assert.deepEqual(got.body, manifest)
})
