// tests: shared/db/blob-keys.ts, shared/registry/keep-attempt.ts

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, utimes, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { EMPTY_SESSION } from '#shared/blobs/blob-store.ts'
import type { RegionWithStores } from '#shared/region.ts'
import { sweepBlockedBy } from '../../../services/janitor/sweep-limits.ts'
import { createOrphanSweep } from '../../../services/janitor/sweep-orphans.ts'
import { append } from '../../contract/blob-store.ts'
import { ageBlobs } from '../../support/age-blobs.ts'
import { eventually } from '../../support/eventually.ts'
import { HELD } from '../../support/held.ts'
import { sha256 } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { runCommand } from '../../support/portolan-process.ts'
import { execute } from '../../support/postgres.ts'
import { storeNode, testRegion } from '../../support/region.ts'

const DAY_MS = 86_400_000
const signal = new AbortController().signal

async function orphans(region: RegionWithStores, count: number): Promise<void> {
  for (let made = 0; made < count; made++) await append(region.blobs, EMPTY_SESSION, randomBytes(10))
}

async function objects(region: RegionWithStores): Promise<number> {
  return (await region.blobs.list('', 1_000)).length
}

test('a sweep may remove a tenth of the store or ten objects, but not more than the database knew', () => {
  const judge = (objects: number, orphans: number, seenMax: number, founded = false) =>
    sweepBlockedBy({ objects, named: objects - orphans, orphans, orphanBytes: 0 }, { seenMax, founded })
  assert.equal(judge(1_000, 100, 900), undefined)
  assert.equal(judge(1_000, 101, 900), 'share')
  assert.equal(judge(5, 1, 4), undefined, 'a small store is cleaned')
  assert.equal(judge(20, 10, 10), undefined)
  assert.equal(judge(20, 11, 11), 'share')
  assert.equal(judge(1_000, 90, 80), 'unknown')
  assert.equal(judge(1, 1, 0), 'unknown', 'an adopted store')
  assert.equal(judge(3, 3, 0, true), undefined, 'a new registry whose first pushes failed')
  assert.equal(judge(11, 11, 0, true), 'unknown')
  assert.equal(judge(0, 0, 0), undefined)
})

test('a sweep of more than a tenth removes nothing and logs one line, until an operator allows it', async (t) => {
  const node = await storeNode(t)
  const { region, logLines } = node
  for (let count = 0; count < 20; count++)
    await ociClient(node.url).pushBlob('a', Buffer.from(`blob ${count}`))
  const sweep = createOrphanSweep(region)
  assert.equal(await sweep(signal, HELD), 0)
  // Lost rows, as after a failed restore.
  await execute(
    region.databaseUrl,
    'delete from blob where digest in (select digest from blob order by digest limit 12)',
  )
  await ageBlobs(region)
  assert.equal(await sweep(signal, HELD), 0)
  assert.equal(await sweep(signal, HELD), 0)
  assert.equal(await objects(region), 20)
  const told = logLines.filter((line) => line.includes('more than a tenth'))
  assert.equal(told.length, 1)
  assert.match(told[0] ?? '', /"level":"error".*"orphans":12/)
  assert.match(await region.metrics.text(), /portolan_sweep_blocked\{reason="share"\} 1/)

  const env = {
    PORTOLAN_DATABASE_URL: region.databaseUrl,
    PORTOLAN_DATA_DIR: region.config.dataDir,
    PORTOLAN_LOG_LEVEL: 'error',
  }
  const asked = await runCommand(['sweep'], env)
  assert.equal(asked.code, 1)
  assert.match(
    asked.stdout,
    /holds 20 objects; 8 of them have a row\. 12 .*\n.*more than a tenth.*sweep --yes/,
  )
  assert.equal(await objects(region), 20, 'without --yes nothing is removed')
  const allowed = await runCommand(['sweep', '--yes'], env)
  assert.equal(allowed.code, 0, allowed.stderr)
  assert.match(allowed.stdout, /Removed 12\./)
  assert.equal(await objects(region), 8)
  assert.equal(await sweep(signal, HELD), 0)
  assert.ok(logLines.some((line) => line.includes('sweeps resumed')))
  assert.match(await region.metrics.text(), /portolan_sweep_blocked\{reason="share"\} 0/)
})

test('an object that gets its row between the count and the removal is kept', async (t) => {
  const { region } = await storeNode(t)
  await orphans(region, 3)
  await ageBlobs(region)
  const [first] = await region.blobs.list('', 1)
  assert.ok(first)
  const sweep = createOrphanSweep({
    ...region,
    blobs: {
      ...region.blobs,
      // Called after the count and before any removal.
      dropUnfinished: async () => {
        await execute(
          region.databaseUrl,
          `insert into blob (digest, store, key, size, lease_until)
           values ('${sha256('late')}', 'file', '${first.key}', ${first.size}, clock_timestamp())`,
        )
        return 0
      },
    },
  })
  assert.equal(await sweep(signal, HELD), 2)
  assert.deepEqual(
    (await region.blobs.list('', 10)).map(({ key }) => key),
    [first.key],
  )
})

for (const [what, offMs] of [
  ['ahead', 10 * DAY_MS],
  ['behind', -10 * DAY_MS],
] as const) {
  test(`a janitor whose clock is ${what} keeps an upload in flight and removes old orphans`, async (t) => {
    const node = await storeNode(t)
    const client = ociClient(node.url)
    await orphans(node.region, 2)
    await ageBlobs(node.region)
    const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
    const bytes = randomBytes(2 * 1024 * 1024)
    const sending = request(`${node.url}${location}?digest=${sha256(bytes)}`, { method: 'PUT' })
    const answered = new Promise<number>((resolve, reject) => {
      sending.on('response', (answer) => resolve(answer.resume().statusCode ?? 0))
      sending.on('error', reject)
    })
    sending.write(bytes.subarray(0, 1024 * 1024))
    await eventually('the attempt to hold bytes', async () =>
      (await node.region.blobs.list('', 10)).some(({ size }) => size > 1_000),
    )
    const now = Date.now
    t.mock.method(Date, 'now', () => now() + offMs)
    assert.equal(await createOrphanSweep(node.region)(signal, HELD), 2)
    t.mock.restoreAll()
    sending.end(bytes.subarray(1024 * 1024))
    assert.equal(await answered, 201)
    assert.equal(sha256((await client.get(`/v2/a/blobs/${sha256(bytes)}`)).body), sha256(bytes))
  })
}

test('a body that takes longer than the grace time to arrive has a row until it has arrived', async (t) => {
  const node = await storeNode(t, { env: { PORTOLAN_ORPHAN_GRACE_SECONDS: '1' } })
  const { region } = node
  const client = ociClient(node.url)
  const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  let send = (_bytes: Buffer, _last: boolean) => {}
  const body = new ReadableStream({
    start(controller) {
      send = (bytes, last) => {
        controller.enqueue(bytes)
        if (last) controller.close()
      }
    },
  })
  const patching = client.request('PATCH', location, { body })
  send(Buffer.from('slow '), false)
  const rows = () =>
    region.db.rows<{ key: string }>({ name: 'attempts', text: 'select key from attempt', parameters: [] })
  await eventually('the row', async () => (await rows()).length === 1)
  await ageBlobs(region)
  assert.equal(await createOrphanSweep(region)(signal, HELD), 0)
  send(Buffer.from('and steady'), true)
  assert.equal((await patching).status, 202)
  assert.deepEqual(await rows(), [])
  const digest = sha256('slow and steady')
  assert.equal((await client.request('PUT', `${location}?digest=${digest}`)).status, 201)
  assert.equal((await client.get(`/v2/a/blobs/${digest}`)).body.toString(), 'slow and steady')
})

test('files that are not blobs are neither counted nor removed', async (t) => {
  const { region } = await testRegion(t)
  const directory = join(region.config.dataDir, 'eu', 'blobs')
  const strangers = [join(directory, 'README'), join(directory, '00', 'notes.txt')]
  await mkdir(join(directory, 'lost+found'))
  for (const path of strangers) {
    await writeFile(path, 'mine')
    await utimes(path, 0, 0)
  }
  assert.equal(await createOrphanSweep(region)(signal, HELD), 0)
  assert.equal(await objects(region), 0)
})
