// tests: shared/registry/small-body.ts, shared/registry/commit-upload.ts, shared/db/commit-blob.ts
// tests: shared/db/blob-bytes.ts
//
// Blobs in the database: sizes around the limit, every way to push them, and what happens to their rows.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { removeBlobBytes } from '#shared/db/blob-bytes.ts'
import { blobPlace } from '#shared/db/blobs.ts'
import type { Digest } from '#shared/oci/digest.ts'
import { expireUploads } from '../../../../services/janitor/expire-uploads.ts'
import { createScrub } from '../../../../services/janitor/scrub.ts'
import { createRowSweep } from '../../../../services/janitor/sweep-rows.ts'
import { moveAllBlobs } from '../../../../services/move-blobs/move-blobs.ts'
import { UPLOADS } from '../../../support/blob-harm.ts'
import { HELD } from '../../../support/held.ts'
import { sha256, sha512, testImage } from '../../../support/image.ts'
import { type OciClient, ociClient } from '../../../support/oci-client.ts'
import { execute } from '../../../support/postgres.ts'
import { type TestNode, testNode } from '../../../support/region.ts'

const LIMIT = 16_384
const { signal } = new AbortController()

describe('a small blob', () => {
  const hooks: (() => unknown)[] = []
  const cleanup = { after: (hook: () => unknown) => void hooks.push(hook) }
  let node: TestNode
  let client: OciClient
  before(async () => {
    node = await testNode(cleanup, { env: { PORTOLAN_ORPHAN_GRACE_SECONDS: '3600' } })
    client = ociClient(node.url)
  })
  after(async () => {
    for (const hook of hooks.toReversed()) await hook()
  })

  const storeOf = async (digest: Digest) => (await blobPlace(node.region.db, digest))?.store
  const keyOf = async (bytes: Buffer) => (await blobPlace(node.region.db, sha256(bytes)))?.key ?? ''
  const rows = async () => (await node.region.smallBlobs.store.list('', 1_000)).length

  async function assertServed(digest: Digest, bytes: Buffer, on = client): Promise<void> {
    const got = await on.get(`/v2/a/blobs/${digest}`)
    assert.equal(got.status, 200)
    assert.ok(got.body.equals(bytes))
    assert.equal(got.headers.get('docker-content-digest'), digest)
    const head = await on.request('HEAD', `/v2/a/blobs/${digest}`)
    assert.deepEqual([head.status, head.headers.get('content-length')], [200, String(bytes.length)])
  }

  for (const size of [0, 1, LIMIT, LIMIT + 1]) {
    test(`of ${size} bytes is where it belongs, by every way to push it`, async () => {
      for (const digestOf of [sha256, sha512]) {
        for (const announced of ['', '?digest-algorithm=sha512']) {
          const bytes = randomBytes(size)
          const digest = digestOf(bytes)
          const begin = async () =>
            (await client.request('POST', `/v2/a/blobs/uploads/${announced}`)).headers.get('location') ?? ''
          const put = async (location: string | null, body?: Buffer) =>
            (await client.request('PUT', `${location}?digest=${digest}`, body === undefined ? {} : { body }))
              .status
          const patch = async (location: string | null, body: Buffer) =>
            (await client.request('PATCH', location ?? '', { body })).headers.get('location')
          const half = Math.floor(size / 2)
          const ways: [string, () => Promise<number>][] = [
            ['one PUT', async () => put(await begin(), bytes)],
            ['PATCH and PUT', async () => put(await patch(await begin(), bytes))],
            [
              'PATCH with a stale Location',
              async () => {
                const location = await begin()
                await patch(location, bytes)
                return put(location)
              },
            ],
            [
              'two PATCH',
              async () => {
                const next = await patch(await begin(), bytes.subarray(0, half))
                return put(await patch(next, bytes.subarray(half)))
              },
            ],
            [
              'PATCH, and the rest by PUT',
              async () => {
                const next = await patch(await begin(), bytes.subarray(0, half))
                return put(next, bytes.subarray(half))
              },
            ],
            [
              'one POST',
              async () =>
                (await client.request('POST', `/v2/a/blobs/uploads/?digest=${digest}`, { body: bytes }))
                  .status,
            ],
            [
              'a stream',
              async () => {
                const body = new Response(new Blob([bytes.subarray(0, half), bytes.subarray(half)])).body
                const answer = await client.request('PATCH', await begin(), { body: body as ReadableStream })
                return put(answer.headers.get('location'))
              },
            ],
          ]
          for (const [way, push] of ways) {
            assert.equal(await push(), 201, way)
            await assertServed(digest, bytes)
            assert.equal(await storeOf(digest), size > LIMIT ? 'file' : 'postgres', way)
            await client.request('DELETE', `/v2/a/blobs/${digest}`)
          }
        }
      }
    })
  }

  test('leaves one row, whoever pushes it at the same time, and none when it is refused', async () => {
    const before = await rows()
    const bytes = randomBytes(5_000)
    const second = await testNode(cleanup, { sharing: node })
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, index) => {
        const upload = Object.values(UPLOADS)[index % 3]
        return upload?.(index % 2 === 0 ? client : ociClient(second.url), `r${index}`, bytes)
      }),
    )
    assert.deepEqual(new Set(answers.map((answer) => answer?.status)), new Set([201]))
    assert.equal(await rows(), before + 1)
    const wrong = await client.request('POST', `/v2/a/blobs/uploads/?digest=${sha256('y')}`, { body: bytes })
    assert.equal(wrong.status, 400)
    assert.match(await wrong.text(), /DIGEST_INVALID/)
    assert.equal(await rows(), before + 1)
  })

  test('that grows over the limit moves to the store, and nothing of it is left in its row', async () => {
    const pieces = [10_000, 6_384, 1, 30_000, 5].map((size) => randomBytes(size))
    const bytes = Buffer.concat(pieces)
    const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
    let size = 0
    for (const body of pieces.slice(0, -1)) {
      const headers = { 'Content-Range': `${size}-${size + body.length - 1}` }
      size += body.length
      const patched = await client.request('PATCH', location, { headers, body })
      assert.deepEqual([patched.status, patched.headers.get('range')], [202, `0-${size - 1}`])
      const [row] = await node.region.db.rows<{ store: string; held: number | null }>({
        name: 'test-upload-row',
        text: `select store, octet_length(bytes) as held from upload where repository = 'a'`,
        parameters: [],
      })
      assert.deepEqual(row, size > LIMIT ? { store: 'file', held: null } : { store: 'postgres', held: size })
    }
    const ended = await client.request('PUT', `${location}?digest=${sha256(bytes)}`, {
      body: pieces.at(-1) ?? '',
    })
    assert.equal(ended.status, 201)
    await assertServed(sha256(bytes), bytes)
    assert.equal(await storeOf(sha256(bytes)), 'file')
    assert.equal((await node.region.blobs.list('', 100)).filter((one) => one.size === bytes.length).length, 1)
  })

  test('is served by ranges, is mounted, and is named by manifests', async () => {
    const bytes = randomBytes(LIMIT)
    await client.pushBlob('a', bytes)
    for (const [range, from, to] of [
      ['0-0', 0, 1],
      ['100-', 100, LIMIT],
      ['-5', LIMIT - 5, LIMIT],
    ] as const) {
      const got = await client.get(`/v2/a/blobs/${sha256(bytes)}`, { Range: `bytes=${range}` })
      assert.equal(got.status, 206)
      assert.ok(got.body.equals(bytes.subarray(from, to)))
    }
    const several = await client.get(`/v2/a/blobs/${sha256(bytes)}`, { Range: 'bytes=0-1,10-12' })
    assert.equal(several.status, 206)
    assert.ok(several.body.includes(bytes.subarray(10, 13)))
    const mounted = await client.request('POST', `/v2/mounted/blobs/uploads/?mount=${sha256(bytes)}&from=a`)
    assert.equal(mounted.status, 201)
    await client.pushImage('a', testImage({}, randomBytes(100)), 'small')
    assert.equal((await client.get('/v2/a/manifests/small')).status, 200)
  })

  for (const [harm, sql] of [
    ['missing', 'delete from blob_bytes where key = $key'],
    ['short', 'update blob_bytes set bytes = substr(bytes, 2) where key = $key'],
    ['flipped', 'update blob_bytes set bytes = set_byte(bytes, 7, get_byte(bytes, 7) # 1) where key = $key'],
  ] as const) {
    test(`whose row is ${harm} is unknown, and whole again after each way to push it`, async () => {
      for (const [way, upload] of Object.entries(UPLOADS)) {
        const bytes = randomBytes(5_000)
        await client.pushBlob('a', bytes)
        const key = await keyOf(bytes)
        await execute(node.region.databaseUrl, sql.replace('$key', `'${key}'`))
        const read = await client.get(`/v2/a/blobs/${sha256(bytes)}`)
        assert.equal(read.status, 404)
        assert.match(read.body.toString(), /BLOB_UNKNOWN.*damaged/)
        assert.equal((await client.request('HEAD', `/v2/a/blobs/${sha256(bytes)}`)).status, 404)
        assert.equal((await upload(client, 'a', bytes)).status, 201, way)
        await assertServed(sha256(bytes), bytes)
        assert.notEqual(await keyOf(bytes), key, 'keys are never used again')
        const left = await node.region.smallBlobs.store.list('', 1_000)
        assert.equal(
          left.some((row) => row.key === key),
          false,
          'the damaged bytes are removed',
        )
      }
    })
  }

  test('that is damaged and read by nobody is repaired by a push, and found by the scrub', async () => {
    const [pushed, scrubbed] = [randomBytes(5_000), randomBytes(5_000)]
    for (const bytes of [pushed, scrubbed]) await client.pushBlob('a', bytes)
    await removeBlobBytes(node.region.db, [await keyOf(pushed)])
    await client.pushBlob('a', pushed)
    await assertServed(sha256(pushed), pushed)
    await execute(
      node.region.databaseUrl,
      `update blob_bytes set bytes = set_byte(bytes, 7, get_byte(bytes, 7) # 1) where key = '${await keyOf(scrubbed)}'`,
    )
    const scrub = createScrub(node.region)
    const runs = [await scrub(signal), await scrub(signal)]
    assert.equal(
      runs.reduce((sum, { damaged }) => sum + damaged, 0),
      1,
    )
    assert.equal((await client.get(`/v2/a/blobs/${sha256(scrubbed)}`)).status, 404)
  })

  test('without a blob row is swept when it is old, and nothing else is', async () => {
    const bytes = randomBytes(300)
    await client.pushBlob('a', bytes)
    const { store } = node.region.smallBlobs
    const insert = (key: string, hours: number) =>
      execute(
        node.region.databaseUrl,
        `insert into blob_bytes (key, bytes, created_at) values ('${key}', 'x', now() - interval '${hours} hours')`,
      )
    await insert('0'.repeat(32), 2)
    await insert('f'.repeat(32), 2)
    await insert('1'.repeat(32), 0)
    await execute(
      node.region.databaseUrl,
      `update blob_bytes set created_at = created_at - interval '9 days' where bytes <> 'x'`,
    )
    const before = await rows()
    assert.equal(await createRowSweep(node.region)(signal, HELD), 2)
    assert.equal(await rows(), before - 2)
    await assertServed(sha256(bytes), bytes)
    await store.remove(['1'.repeat(32)])
  })

  test('session that rests too long ends with its bytes, and so do the rows of sessions that ended', async () => {
    const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
    assert.equal((await client.request('PATCH', location, { body: 'abandoned' })).status, 202)
    const count = async () =>
      (
        await node.region.db.rows<{ n: number }>({
          name: 'n',
          text: 'select count(*) as n from upload',
          parameters: [],
        })
      )[0]?.n
    await execute(node.region.databaseUrl, `update upload set expires_at = clock_timestamp()`)
    assert.equal((await client.request('PATCH', location, { body: 'more' })).status, 404)
    assert.equal(await expireUploads(node.region, signal, HELD), 1)
    assert.equal(await count(), 0)
  })

  test('moves to the store when the database is to keep none', async () => {
    const bytes = [randomBytes(1), randomBytes(LIMIT)]
    for (const one of bytes) await client.pushBlob('a', one)
    const kept = await moveAllBlobs(node.region, { keepOldMs: 0, signal, held: HELD })
    assert.equal(kept.blobs, 0, 'small blobs stay while new ones go there too')
    const off = await testNode(cleanup, { sharing: node, env: { PORTOLAN_INLINE_BYTES_MAX: '0' } })
    for (const one of bytes) await assertServed(sha256(one), one, ociClient(off.url))
    const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
    await client.request('PATCH', location, { body: 'begun small' })
    const more = await ociClient(off.url).request('PATCH', location, { body: ', ended in a file' })
    assert.equal(more.status, 202)
    const whole = 'begun small, ended in a file'
    assert.equal((await client.request('PUT', `${location}?digest=${sha256(whole)}`)).status, 201)
    const { failed } = await moveAllBlobs(off.region, { keepOldMs: 0, signal, held: HELD })
    // The previous test has damaged no row that still counts as good.
    assert.deepEqual(failed, [])
    for (const one of [...bytes, Buffer.from(whole)]) {
      assert.equal(await storeOf(sha256(one)), 'file')
      for (const on of [node, off]) await assertServed(sha256(one), one, ociClient(on.url))
    }
  })
})
