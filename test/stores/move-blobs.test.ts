// A region moves from files to S3 while it serves: two nodes, continuous pulls and pushes, a run that dies, and a
// corrupt file.
// tests: services/move-blobs/move-blobs.ts, shared/blobs/open-store.ts

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { blobPlace, sumBlobsElsewhere } from '#shared/db/blobs.ts'
import { LeaseLostError } from '#shared/db/lease.ts'
import { moveAllBlobs } from '../../services/move-blobs/move-blobs.ts'
import { HELD, heldUntil } from '../support/held.ts'
import { sha256 } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'
import { startObjectStore, withoutStore } from '../support/parts/object-stores.ts'
import { storeNode } from '../support/region.ts'

const MIB = 1024 * 1024
const skip = withoutStore('minio')
const root = join(import.meta.dirname, '..', '..')

async function setUp(t: TestContext) {
  const server = await startObjectStore('minio')
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...env } = server.env
  Object.assign(process.env, { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY })
  const before = await storeNode(t, { env: { ...env, PORTOLAN_BLOBS: 'file' } })
  t.after(() => server[Symbol.asyncDispose]())
  const blobs = Array.from({ length: 25 }, (_, index) =>
    randomBytes(index % 8 === 0 ? 6 * MIB : 3000 + index),
  )
  blobs.push(Buffer.alloc(0))
  const client = ociClient(before.url)
  for (const blob of blobs) await client.pushBlob('a/b', blob)
  const node = (region: Parameters<typeof storeNode>[1] = {}) =>
    storeNode(t, { sharing: before, env, ...region })
  return { before, blobs, env, node }
}

const forever = new AbortController().signal

test('a region moves to S3 during pulls and pushes, despite a failed run, and loses nothing', {
  skip,
}, async (t) => {
  const { before, blobs, node } = await setUp(t)
  // A session that is open when the node changes its store stays in the old store.
  const session = await ociClient(before.url).request('POST', '/v2/a/b/blobs/uploads/')
  const half = randomBytes(1000)
  await ociClient(before.url).request('PATCH', session.headers.get('location') ?? '', { body: half })

  let copies = 0
  const dying = new AbortController()
  const died = await node({
    reach: (reached) => {
      if (reached === 'blob-copied' && ++copies === 8) dying.abort(new Error('killed'))
    },
  })
  const client = ociClient(died.url)
  const pushed: Buffer[] = [...blobs]
  let moving = true
  const load = (async () => {
    while (moving) {
      const bytes = randomBytes(2000)
      await client.pushBlob('a/b', bytes)
      pushed.push(bytes)
      const one = pushed[Math.floor(Math.random() * pushed.length)] ?? bytes
      const { status, body } = await client.get(`/v2/a/b/blobs/${sha256(one)}`)
      assert.equal(status, 200)
      assert.ok(body.equals(one))
    }
  })()
  await assert.rejects(
    moveAllBlobs(died.region, { keepOldMs: 50, signal: dying.signal, held: HELD }),
    /killed/,
  )
  const left = await sumBlobsElsewhere(died.region.db, ['s3'])
  assert.ok(left.blobs > 0 && left.blobs < blobs.length, `${left.blobs} blobs remain`)
  const result = await moveAllBlobs(died.region, { keepOldMs: 50, signal: forever, held: HELD })
  assert.deepEqual(result.failed, [])
  assert.equal(result.blobs, left.blobs)
  moving = false
  await load
  assert.deepEqual(await sumBlobsElsewhere(died.region.db, ['s3']), { blobs: 0, bytes: 0 })
  for (const bytes of pushed) {
    const { body } = await client.get(`/v2/a/b/blobs/${sha256(bytes)}`)
    assert.equal(sha256(body), sha256(bytes))
  }
  const kept = await before.region.blobs.list('', 100)
  assert.deepEqual(
    kept.map(({ size }) => size),
    [half.length],
    'only the file of the open session is left',
  )
  const ended = await client.request('PUT', `${session.headers.get('location')}?digest=${sha256(half)}`)
  assert.equal(ended.status, 201)
  assert.equal((await blobPlace(died.region.db, sha256(half)))?.store, 'file')
  assert.ok((await client.get(`/v2/a/b/blobs/${sha256(half)}`)).body.equals(half))
})

test('a corrupt file is reported and not moved, and the others move', { skip }, async (t) => {
  const { before, blobs, node } = await setUp(t)
  const victim = blobs[3] ?? Buffer.alloc(0)
  const place = await blobPlace(before.region.db, sha256(victim))
  assert.ok(place)
  const path = join(before.region.config.dataDir, 'eu', 'blobs', place.key.slice(0, 2), place.key)
  const handle = await open(path, 'r+')
  await handle.write(Buffer.from([(victim[0] ?? 0) ^ 1]), 0, 1, 0)
  await handle.close()
  const after = await node()
  const { failed } = await moveAllBlobs(after.region, { keepOldMs: 1, signal: forever, held: HELD })
  assert.deepEqual(
    failed.map(({ digest }) => digest),
    [sha256(victim)],
  )
  assert.equal((await sumBlobsElsewhere(after.region.db, ['s3'])).blobs, 1)
  assert.equal(
    (await after.region.blobs.list('', 100)).length,
    blobs.length - 1,
    'no copy of the corrupt file is kept',
  )
})

test('the command shows progress, exits with 0, and rejects a store that new blobs do not go to', {
  skip,
}, async (t) => {
  const { before, env } = await setUp(t)
  const run = (...args: string[]) =>
    new Promise<{ code: number; output: string }>((done) => {
      const environment = {
        ...process.env,
        ...env,
        PORTOLAN_DATABASE_URL: before.region.databaseUrl,
        PORTOLAN_DATA_DIR: before.region.config.dataDir,
        PORTOLAN_LOG_LEVEL: 'warn',
      }
      execFile(
        process.execPath,
        ['services/main.ts', ...args],
        { cwd: root, env: environment },
        (error, out, err) => done({ code: Number(error?.code ?? 0), output: out + err }),
      )
    })
  const wrong = await run('move-blobs', '--to', 'azure')
  assert.equal(wrong.code, 1)
  assert.match(wrong.output, /requires PORTOLAN_BLOBS=azure/)
  const moved = await run('move-blobs', '--to', 's3')
  assert.match(moved.output, /\[=* *\] .* MiB, .* s left/)
  assert.match(moved.output, /moved 26 of 26 blobs .* to s3/)
  assert.equal(moved.code, 0)
})

test('a run that has lost its lease switches no row and removes no bytes, old or new', {
  skip,
}, async (t) => {
  const { before, blobs, node } = await setUp(t)
  const old = await before.region.blobs.list('', 100)
  let copies = 0
  const after = await node({
    reach: (reached) => {
      if (reached === 'blob-copied') copies++
    },
  })
  const lost = () => copies > 3
  await assert.rejects(
    moveAllBlobs(after.region, { keepOldMs: 1, signal: forever, held: heldUntil(lost) }),
    LeaseLostError,
  )
  assert.ok(copies < blobs.length, 'the run ends soon')
  assert.deepEqual(await before.region.blobs.list('', 100), old)
  const left = await sumBlobsElsewhere(after.region.db, ['s3'])
  assert.ok(left.blobs >= blobs.length - 3, `${left.blobs} blobs remain`)
  for (const bytes of blobs) {
    const { body } = await ociClient(after.url).get(`/v2/a/b/blobs/${sha256(bytes)}`)
    assert.equal(sha256(body), sha256(bytes))
  }
})
