// A row whose object is missing, short or corrupt. The damage is detected. The blob is never served and never mounted,
// and the next upload repairs it.
// tests: shared/registry/settle-blob.ts

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { fileOf, HARMS, harmFile, UPLOADS } from '../../support/blob-harm.ts'
import { eventually } from '../../support/eventually.ts'
import { sha256, testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { rawHttp } from '../../support/raw-http.ts'
import { storeNode, type TestNode } from '../../support/region.ts'

const SIZES = { small: 10_000, large: 3_000_000 }

/** Returns the status of a GET, or 'cut' if the connection broke before the body was complete. */
async function pull(node: TestNode, repository: string, bytes: Buffer): Promise<number | 'cut'> {
  try {
    const { status, body } = await ociClient(node.url).get(`/v2/${repository}/blobs/${sha256(bytes)}`)
    if (status === 200) assert.equal(sha256(body), sha256(bytes), 'a complete 200 has the right bytes')
    return status
  } catch (thrown) {
    assert.ok(thrown instanceof TypeError, String(thrown))
    return 'cut'
  }
}

async function head(node: TestNode, repository: string, bytes: Buffer): Promise<number> {
  return (await ociClient(node.url).request('HEAD', `/v2/${repository}/blobs/${sha256(bytes)}`)).status
}

const markedLines = ({ logLines }: TestNode) => logLines.filter((line) => line.includes('is damaged'))

for (const [name, size] of Object.entries(SIZES)) {
  for (const harm of HARMS) {
    describe(`a ${name} blob that is ${harm}`, () => {
      for (const [way, upload] of Object.entries(UPLOADS)) {
        test(`is found by a pull and repaired by ${way}`, async (t) => {
          const node = await storeNode(t)
          const client = ociClient(node.url)
          const bytes = randomBytes(size)
          await client.pushBlob('a', bytes)
          const dead = await fileOf(node, bytes)
          await harmFile(dead, harm)
          const first = await pull(node, 'a', bytes)
          assert.ok(first === 404 || first === 'cut', String(first))
          await eventually('the blob to be marked', async () => (await head(node, 'a', bytes)) === 404)
          const again = await client.get(`/v2/a/blobs/${sha256(bytes)}`)
          assert.equal(again.status, 404)
          assert.match(again.body.toString(), /BLOB_UNKNOWN.*damaged.*push it again/)
          assert.equal(markedLines(node).length, 1, 'one line for the operator')
          assert.match(await node.region.metrics.text(), /^portolan_blobs_damaged_total\{[^}]*\} 1$/m)
          const pushed = await upload(client, 'b', bytes)
          assert.equal(pushed.status, 201, await pushed.text())
          for (const repository of ['a', 'b']) {
            assert.equal(await pull(node, repository, bytes), 200)
            assert.equal(await head(node, repository, bytes), 200)
          }
          assert.notEqual(await fileOf(node, bytes), dead, 'keys are never reused')
          assert.equal((await node.region.blobs.list('', 10)).length, 1, 'the damaged bytes are removed')
        })
      }

      if (harm !== 'flipped') {
        for (const [way, upload] of Object.entries(UPLOADS)) {
          test(`is repaired by ${way} without a pull before`, async (t) => {
            const node = await storeNode(t)
            const client = ociClient(node.url)
            const bytes = randomBytes(size)
            await client.pushBlob('a', bytes)
            await harmFile(await fileOf(node, bytes), harm)
            const pushed = await upload(client, 'b', bytes)
            assert.equal(pushed.status, 201, await pushed.text())
            for (const repository of ['a', 'b']) assert.equal(await pull(node, repository, bytes), 200)
            assert.equal((await node.region.blobs.list('', 10)).length, 1)
          })
        }

        test('is absent for HEAD, so docker uploads it again', async (t) => {
          const node = await storeNode(t)
          const bytes = randomBytes(size)
          await ociClient(node.url).pushBlob('a', bytes)
          await harmFile(await fileOf(node, bytes), harm)
          assert.equal(await head(node, 'a', bytes), 404)
          await ociClient(node.url).pushBlob('a', bytes)
          assert.equal(await head(node, 'a', bytes), 200)
          assert.equal(await pull(node, 'a', bytes), 200)
        })
      }
    })
  }
}

test('a corrupt large blob is never sent complete, however a client requests all of it', async (t) => {
  const node = await storeNode(t)
  const bytes = randomBytes(SIZES.large)
  await ociClient(node.url).pushBlob('a', bytes)
  assert.equal(await pull(node, 'a', bytes), 200, 'the blob was intact before')
  await harmFile(await fileOf(node, bytes), 'flipped')
  for (const headers of ['', 'Range: bytes=0-\r\n', `Range: bytes=0-${bytes.length - 1}\r\n`]) {
    const request = `GET /v2/a/blobs/${sha256(bytes)} HTTP/1.1\r\nHost: h\r\n${headers}\r\n`
    const answer = await rawHttp(node.port, [request], 5_000)
    const [status = 0] = answer.statuses
    if (status === 404) break
    assert.equal(answer.closed, true)
    assert.ok(answer.text.length < bytes.length, 'the end is withheld')
  }
  await eventually('the blob to be marked', async () => (await head(node, 'a', bytes)) === 404)
  assert.equal(markedLines(node).length, 1)
})

test('a manifest with a damaged blob is rejected with its digest, and accepted after the upload', async (t) => {
  const node = await storeNode(t)
  const client = ociClient(node.url)
  const image = testImage({}, randomBytes(SIZES.large))
  await client.pushImage('a', image, 'v1')
  const layer = image.blobs[1] ?? Buffer.alloc(0)
  await harmFile(await fileOf(node, layer), 'missing')
  assert.equal(await head(node, 'a', layer), 404)
  const refused = await client.pushManifest('a', 'v2', image)
  assert.equal(refused.status, 404)
  assert.match(await refused.text(), new RegExp(`MANIFEST_BLOB_UNKNOWN.*${sha256(layer)}`))
  assert.equal((await client.get('/v2/a/manifests/v1')).status, 200, 'the manifest itself is not lost')
  await client.pushBlob('a', layer)
  assert.equal((await client.pushManifest('a', 'v2', image)).status, 201)
})

test('a damaged blob can be deleted from its repository', async (t) => {
  const node = await storeNode(t)
  const client = ociClient(node.url)
  const bytes = randomBytes(SIZES.large)
  await client.pushBlob('a', bytes)
  await harmFile(await fileOf(node, bytes), 'missing')
  assert.equal(await head(node, 'a', bytes), 404)
  assert.equal((await client.request('DELETE', `/v2/a/blobs/${sha256(bytes)}`)).status, 202)
})

test('concurrent uploads repair one blob: all return 201, and one object remains', async (t) => {
  const first = await storeNode(t)
  const second = await storeNode(t, { sharing: first })
  const bytes = randomBytes(200_000)
  for (let round = 0; round < 5; round++) {
    await ociClient(first.url).pushBlob('a', bytes)
    await harmFile(await fileOf(first, bytes), round % 2 === 0 ? 'missing' : 'short')
    const statuses = await Promise.all(
      Array.from({ length: 10 }, async (_, index) => {
        const client = ociClient((index % 2 === 0 ? first : second).url)
        const upload = UPLOADS[index % 3 === 0 ? 'one POST' : 'POST, PATCH and PUT']
        return (await upload?.(client, `r${index}`, bytes))?.status
      }),
    )
    assert.deepEqual(new Set(statuses), new Set([201]))
    for (const node of [first, second]) assert.equal(await pull(node, 'a', bytes), 200)
    assert.equal((await first.region.blobs.list('', 20)).length, 1)
  }
})

test('an unavailable store marks no blob: pulls return 503 and work again when it is back', async (t) => {
  const node = await storeNode(t)
  const blobs = { small: randomBytes(SIZES.small), large: randomBytes(SIZES.large) }
  for (const bytes of Object.values(blobs)) await ociClient(node.url).pushBlob('a', bytes)
  const directory = join(node.region.config.dataDir, 'eu', 'blobs')
  await rename(directory, `${directory}-away`)
  // An unmounted file system looks like this: the directory exists and is empty.
  await mkdir(directory)
  for (const bytes of Object.values(blobs)) {
    assert.equal(await pull(node, 'a', bytes), 503)
    assert.equal(await head(node, 'a', bytes), 200, 'the row is trusted while the store is unavailable')
  }
  await rename(`${directory}-away`, directory)
  for (const bytes of Object.values(blobs)) assert.equal(await pull(node, 'a', bytes), 200)
  assert.deepEqual(markedLines(node), [])
})

test('a duplicate upload does not replace a sound blob', async (t) => {
  const node = await storeNode(t)
  const bytes = randomBytes(SIZES.large)
  await ociClient(node.url).pushBlob('a', bytes)
  const path = await fileOf(node, bytes)
  const { ino } = await stat(path)
  for (const upload of Object.values(UPLOADS).slice(0, 5)) {
    assert.equal((await upload(ociClient(node.url), 'b', bytes)).status, 201)
    assert.equal(await fileOf(node, bytes), path)
    assert.equal((await stat(path)).ino, ino)
    assert.equal((await node.region.blobs.list('', 10)).length, 1)
  }
  assert.ok((await readFile(path)).equals(bytes))
  assert.ok(dirname(path).length > 0)
})
