// A crash of Postgres discards open uploads, whose durability is not guaranteed, but no blobs. Clients get an error and
// begin again.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { test } from 'node:test'
import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { startJanitor } from '../../../services/janitor/service.ts'
import { ageBlobs } from '../../support/age-blobs.ts'
import { eventually } from '../../support/eventually.ts'
import { sha256 } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { testDirectory, testNode } from '../../support/region.ts'

test('after a crash of Postgres, open uploads are unknown and acknowledged blobs are kept', async (t) => {
  const dataDir = await testDirectory(t)
  await using postgres = await startEmbeddedPostgres({ directory: join(dataDir, 'pg') })
  const node = await testNode(t, {
    env: { PORTOLAN_DATABASE_URL: postgres.url, PORTOLAN_DATA_DIR: dataDir, PORTOLAN_SWEEP_SECONDS: '1' },
  })
  const client = ociClient(node.url)
  const begin = async () =>
    (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  const patch = async (location: string, body: Buffer) =>
    (await client.request('PATCH', location, { body })).headers.get('location') ?? ''
  const [small, large] = [randomBytes(1_000), randomBytes(100_000)]
  for (const bytes of [small, large]) await client.pushBlob('a', bytes)
  const unborn = await begin()
  const open: [string, Buffer][] = [[unborn, Buffer.alloc(0)]]
  for (const bytes of [randomBytes(900), randomBytes(90_000)]) {
    const location = await begin()
    open.push([location, bytes], [await patch(location, bytes), bytes])
  }
  const pid = postgres.pid()
  assert.ok(pid)
  process.kill(pid, 'SIGKILL')
  await eventually('another Postgres', () => postgres.pid() !== pid)
  await eventually(
    'the registry to answer',
    async () => (await client.get('/v2/a/tags/list')).status !== 503,
    20_000,
  )

  for (const [location, bytes] of open) {
    for (const [method, target] of [
      ['GET', location],
      ['PATCH', location],
      ['PUT', `${location}?digest=${sha256(bytes)}`],
      ['DELETE', location],
    ] as const) {
      const body = method === 'PATCH' ? { body: 'more' } : {}
      const answer = await client.request(method, target, body)
      assert.equal(answer.status, 404, `${method} ${location}`)
      assert.match(await answer.text(), /BLOB_UPLOAD_UNKNOWN/)
    }
  }
  const lost = open.filter(([location]) => location !== unborn).map(([, bytes]) => bytes)
  for (const bytes of lost) await client.pushBlob('a', bytes)
  for (const bytes of [small, large, ...lost])
    assert.deepEqual((await client.get(`/v2/a/blobs/${sha256(bytes)}`)).body, bytes)
  await ageBlobs(node.region)
  await using _ = await startJanitor(node.region)
  await eventually(
    'the bytes of the lost sessions to be swept',
    async () => (await node.region.blobs.list('', 10)).length === 2,
  )
})
