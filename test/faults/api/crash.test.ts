// Nothing acknowledged is lost. A node is killed under load at each point between two durable steps. Afterwards every
// push answered with 201 reads back with its digest, no row lacks its bytes, and no readable blob has a wrong hash. The
// same holds when Postgres is killed under the registry.
// tests: shared/failpoints.ts

import assert from 'node:assert/strict'
import { type ChildProcess, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { FAILPOINTS, type Failpoint } from '#shared/failpoints.ts'
import { startJanitor } from '../../../services/janitor/service.ts'
import { eventually } from '../../support/eventually.ts'
import { sha256, type TestImage, testImage } from '../../support/image.ts'
import { type OciClient, ociClient } from '../../support/oci-client.ts'
import { testDatabase } from '../../support/postgres.ts'
import { testDirectory, testNode, testRegion } from '../../support/region.ts'

const nodeScript = join(import.meta.dirname, '../../support/crash-node.ts')

async function startNode(
  t: TestContext,
  options: { databaseUrl: string; dataDir: string; failpoint?: Failpoint; after?: number },
): Promise<{ child: ChildProcess; url: string }> {
  const child = fork(nodeScript, [
    options.databaseUrl,
    options.dataDir,
    options.failpoint ?? '',
    String(options.after ?? 0),
  ])
  t.after(() => child.kill('SIGKILL'))
  const [port] = (await once(child, 'message')) as [number]
  return { child, url: `http://127.0.0.1:${port}` }
}

/** Everything acknowledged with 201, to be read back. */
interface Acknowledged {
  blobs: Map<string, string>
  manifests: Map<string, { repository: string; image: TestImage }>
}

/** Pushes until the node is gone. Any failure counts as the death of the node. */
async function pushUntilDead(
  client: OciClient,
  repository: string,
  acknowledged: Acknowledged,
): Promise<void> {
  for (let round = 0; round < 200; round++) {
    try {
      const image = testImage({}, randomBytes(round % 3 === 0 ? 200_000 : 500))
      for (const [index, blob] of image.blobs.entries()) {
        const location = (await client.request('POST', `/v2/${repository}/blobs/uploads/`)).headers.get(
          'location',
        )
        const half = Math.floor(blob.length / 2)
        if (index === 0) await client.request('PATCH', location ?? '', { body: blob.subarray(0, half) })
        const rest = index === 0 ? blob.subarray(half) : blob
        const put = await client.request('PUT', `${location}?digest=${sha256(blob)}`, { body: rest })
        if (put.status === 201) acknowledged.blobs.set(sha256(blob), repository)
      }
      const pushed = await client.pushManifest(repository, `t${round}`, image)
      if (pushed.status === 201) acknowledged.manifests.set(`${repository}:t${round}`, { repository, image })
      // Push the same layer to another repository. Its bytes are surplus.
      const layer = image.blobs[1] ?? Buffer.alloc(0)
      const again = await client.request(
        'POST',
        `/v2/${repository}-again/blobs/uploads/?digest=${sha256(layer)}`,
        { body: layer },
      )
      if (again.status === 201) acknowledged.blobs.set(`${sha256(layer)} again`, `${repository}-again`)
      const cancelled = (await client.request('POST', `/v2/${repository}/blobs/uploads/`)).headers.get(
        'location',
      )
      await client.request('PATCH', cancelled ?? '', { body: 'never mind' })
      await client.request('DELETE', cancelled ?? '')
    } catch {
      return
    }
  }
}

async function verify(
  t: TestContext,
  options: { databaseUrl: string; dataDir: string },
  acknowledged: Acknowledged,
) {
  const node = await testNode(t, {
    env: {
      PORTOLAN_DATABASE_URL: options.databaseUrl,
      PORTOLAN_DATA_DIR: options.dataDir,
      PORTOLAN_ORPHAN_GRACE_SECONDS: '1',
      PORTOLAN_SWEEP_SECONDS: '1',
    },
  })
  const client = ociClient(node.url)
  for (const [key, repository] of acknowledged.blobs) {
    const digest = key.split(' ')[0] ?? ''
    const got = await client.get(`/v2/${repository}/blobs/${digest}`)
    assert.equal(got.status, 200, `${repository}@${digest} was answered 201`)
    assert.equal(sha256(got.body), digest)
  }
  for (const [reference, { image, repository }] of acknowledged.manifests) {
    const got = await client.get(`/v2/${repository}/manifests/${reference.split(':')[1]}`)
    assert.equal(got.status, 200, `${reference} was answered 201`)
    assert.deepEqual(got.body, image.bytes)
  }
  const rows = await node.region.db.rows<{ digest: string; store: string; key: string; size: number }>({
    name: 'all-blobs',
    text: 'select digest, store, key, size from blob',
    parameters: [],
  })
  for (const { digest, store, key, size } of rows) {
    const bytes = await (await node.region.stores.named(store)).read(key, size)
    assert.equal(sha256(bytes), digest, 'a row has its bytes')
  }
  assert.deepEqual(new Set(rows.map(({ store }) => store)).isSubsetOf(new Set(['file', 'postgres'])), true)
  await using _ = await startJanitor(node.region)
  const keys = new Set(rows.map(({ key }) => key))
  await node.region.db.rows({
    name: 'expire-all',
    text: 'update upload set expires_at = clock_timestamp()',
    parameters: [],
  })
  await eventually(
    'the leftovers of the killed process to be swept',
    async () => {
      const { blobs, smallBlobs } = node.region
      const left = [...(await blobs.list('', 1_000)), ...(await smallBlobs.store.list('', 1_000))]
      return left.every(({ key }) => keys.has(key))
    },
    30_000,
  )
}

/**
 * Reached by the janitor, by moves between stores (test/stores/move-blobs.test.ts) and by the relay
 * (test/faults/relay).
 */
const BY_OTHERS: readonly Failpoint[] = ['expired-taken', 'blob-copied', 'outbox-moved', 'kafka-sent']

for (const failpoint of FAILPOINTS.filter((name) => !BY_OTHERS.includes(name))) {
  test(`killed at "${failpoint}" under load: acknowledged pushes are kept, the rest is swept`, async (t) => {
    const where = { databaseUrl: await testDatabase(t), dataDir: await testDirectory(t) }
    const acknowledged: Acknowledged = { blobs: new Map(), manifests: new Map() }
    const { child, url } = await startNode(t, { ...where, failpoint, after: 15 })
    const exited = once(child, 'exit')
    await Promise.all(
      ['a', 'b', 'c'].map((repository) => pushUntilDead(ociClient(url), repository, acknowledged)),
    )
    const [, signal] = await exited
    assert.equal(signal, 'SIGKILL', 'the failpoint was reached')
    assert.ok(acknowledged.blobs.size > 0)
    await verify(t, where, acknowledged)
  })
}

test('killed at "expired-taken": the sweep finds the bytes of expired uploads', async (t) => {
  const where = { databaseUrl: await testDatabase(t), dataDir: await testDirectory(t) }
  const { child, url } = await startNode(t, { ...where, failpoint: 'expired-taken' })
  const client = ociClient(url)
  const exited = once(child, 'exit')
  for (let count = 0; count < 5; count++) {
    const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location')
    await client.request('PATCH', location ?? '', { body: randomBytes(20_000) })
  }
  const { region } = await testRegion(t, {
    env: { PORTOLAN_DATABASE_URL: where.databaseUrl, PORTOLAN_DATA_DIR: where.dataDir },
  })
  await region.db.rows({
    name: 'expire-all',
    text: 'update upload set expires_at = clock_timestamp()',
    parameters: [],
  })
  child.send('janitor')
  assert.equal((await exited)[1], 'SIGKILL')
  await verify(t, where, { blobs: new Map(), manifests: new Map() })
})

test('Postgres killed twenty times under load: nothing acknowledged is lost, the registry recovers', async (t) => {
  const dataDir = await testDirectory(t)
  // Stop Postgres before the directory is removed. The removal fails while Postgres still writes there.
  await using postgres = await startEmbeddedPostgres({ directory: join(dataDir, 'pg') })
  const node = await testNode(t, { env: { PORTOLAN_DATABASE_URL: postgres.url, PORTOLAN_DATA_DIR: dataDir } })
  const client = ociClient(node.url)
  const acknowledged: Acknowledged = { blobs: new Map(), manifests: new Map() }
  let stop = false
  const statuses = new Map<number, number>()
  const load = ['a', 'b'].map(async (repository) => {
    for (let _round = 0; !stop; _round++) {
      const blob = randomBytes(300)
      const pushed = await client.request('POST', `/v2/${repository}/blobs/uploads/?digest=${sha256(blob)}`, {
        body: blob,
      })
      await pushed.arrayBuffer()
      statuses.set(pushed.status, (statuses.get(pushed.status) ?? 0) + 1)
      if (pushed.status === 201) acknowledged.blobs.set(sha256(blob), repository)
    }
  })
  for (let kill = 0; kill < 20; kill++) {
    const before = acknowledged.blobs.size
    await eventually('pushes to be accepted', () => acknowledged.blobs.size > before + 3, 20_000)
    const pid = postgres.pid()
    assert.ok(pid)
    process.kill(pid, 'SIGKILL')
    await eventually('another Postgres', () => postgres.pid() !== pid)
  }
  const before = acknowledged.blobs.size
  await eventually(
    'pushes to be accepted after the last kill',
    () => acknowledged.blobs.size > before + 3,
    20_000,
  )
  stop = true
  await Promise.all(load)
  t.diagnostic(
    `${acknowledged.blobs.size} blobs acknowledged; answers by status: ${JSON.stringify([...statuses])}`,
  )
  for (const status of statuses.keys())
    assert.ok([201, 503].includes(status), `unexpected status ${status}: only 201 and 503 are allowed`)
  for (const [digest, repository] of acknowledged.blobs) {
    const got = await client.get(`/v2/${repository}/blobs/${digest}`)
    assert.equal(got.status, 200)
    assert.equal(sha256(got.body), digest)
  }
})
