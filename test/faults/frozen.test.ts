// SIGSTOP of any process, for any length of time. Other processes take over within 10 s, and a process that resumes
// does no harm.

import assert from 'node:assert/strict'
import { utimes } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { EMPTY_SESSION } from '#shared/blobs/blob-store.ts'
import { outboxPending, readEvents } from '#shared/db/event-log.ts'
import { ownReaderPosition } from '#shared/db/own-readers.ts'
import { startJanitor } from '../../services/janitor/service.ts'
import { startRelay } from '../../services/relay/service.ts'
import { startWebhooks } from '../../services/webhooks/service.ts'
import { append } from '../contract/blob-store.ts'
import { eventually } from '../support/eventually.ts'
import { freeze, frozenNode, untilFrozen } from '../support/freeze.ts'
import { testImage } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'
import { execute } from '../support/postgres.ts'
import { push, repositoryName, tags } from '../support/push.ts'
import { storeNode, testRegion } from '../support/region.ts'

/** Other processes must take over within this time. */
const GO_ON_MS_MAX = 10_000

describe('a frozen process', { skip: process.platform !== 'linux' && 'reads /proc' }, () => {
  test('a relay frozen in a move does not block another, and loses or repeats nothing when resumed', async (t) => {
    const { region } = await testRegion(t)
    const where = { databaseUrl: region.databaseUrl, dataDir: region.config.dataDir }
    const { child } = await frozenNode(t, 'relay', { ...where, failpoint: 'outbox-moved' })
    await push(region.db, repositoryName('a'), 'one', { tags: tags('t') })
    await untilFrozen(child)
    await push(region.db, repositoryName('a'), 'two', { tags: tags('t') })
    const numbered = async () => !(await outboxPending(region.db))
    {
      await using _ = await startRelay(region)
      await eventually('the other relay to number everything', numbered, GO_ON_MS_MAX)
    }
    child.kill('SIGCONT')
    await push(region.db, repositoryName('a'), 'three', { tags: tags('t') })
    await eventually('the resumed relay to number', numbered, GO_ON_MS_MAX)
    const events = await readEvents(region.db, { after: { epoch: 1, pos: 0 }, limit: 100 })
    assert.deepEqual(
      events.map(({ pos }) => pos),
      events.map((_, index) => index + 1),
    )
    assert.equal(events.filter(({ type }) => type.includes('.tag.set.')).length, 3)
  })

  test('an API process frozen in a push does not block the repository for others', async (t) => {
    const node = await storeNode(t)
    const client = ociClient(node.url)
    const [first, second, third] = [testImage(), testImage(), testImage()]
    await client.pushImage('a', first, 'v1')
    for (const image of [second, third]) for (const blob of image.blobs) await client.pushBlob('a', blob)
    const where = { databaseUrl: node.region.databaseUrl, dataDir: node.region.config.dataDir }
    const { child, port } = await frozenNode(t, 'api', where)
    // Its transaction waits for this one. Then it is frozen while it holds the row lock.
    await node.region.db.transaction(async (transaction) => {
      await push(transaction, repositoryName('a'), 'held', { tags: tags('v1') })
      const pushing = fetch(`http://127.0.0.1:${port}/v2/a/manifests/v1`, {
        method: 'PUT',
        headers: { 'Content-Type': second.mediaType, 'If-Match': `"${first.digest}"` },
        body: second.bytes,
      })
      pushing.catch(() => {})
      await eventually('the push to wait for the lock', async () => {
        const [row] = await transaction.rows<{ waiting: number }>({
          name: 'waiting-now',
          text: `select count(*) as waiting from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
          parameters: [],
        })
        return row?.waiting === 1
      })
      await freeze(child)
    })
    await eventually(
      'a push of the same tag at another node',
      async () => (await client.pushManifest('a', 'v1', third)).status === 201,
      GO_ON_MS_MAX,
    )
  })

  test('another janitor takes over from a frozen janitor', async (t) => {
    const node = await storeNode(t, {
      env: { PORTOLAN_SWEEP_SECONDS: '1', PORTOLAN_ORPHAN_GRACE_SECONDS: '60' },
    })
    const { region } = node
    const client = ociClient(node.url)
    const location = (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
    await client.request('PATCH', location, { body: Buffer.from('abandoned') })
    await execute(region.databaseUrl, 'update upload set expires_at = clock_timestamp()')
    const where = { databaseUrl: region.databaseUrl, dataDir: region.config.dataDir }
    const { child } = await frozenNode(t, 'janitor', { ...where, failpoint: 'expired-taken' })
    await untilFrozen(child)
    await append(region.blobs, EMPTY_SESSION, Buffer.from('an orphan'))
    const long = new Date(Date.now() - 3_600_000)
    for (const { key } of await region.blobs.list('', 10))
      await utimes(join(region.config.dataDir, 'eu', 'blobs', key.slice(0, 2), key), long, long)
    await using _ = await startJanitor(region)
    const gone = async () => (await region.blobs.list('', 10)).length === 0
    await eventually('the other janitor to sweep', gone, GO_ON_MS_MAX)
  })

  test('another sender sends the deliveries claimed by a frozen sender', async (t) => {
    const node = await storeNode(t)
    const client = ociClient(node.url)
    const ids: string[] = []
    const server = createServer((request, response) => {
      ids.push(String(request.headers['webhook-id']))
      // Do not respond to the first request.
      if (ids.length > 1) response.writeHead(200).end()
    })
    t.after(() => server.closeAllConnections())
    t.after(() => server.close())
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`
    const made = await client.request('POST', '/api/v1/webhooks', {
      body: JSON.stringify({ url, types: ['push'], ordered: true, allowPrivate: true }),
    })
    assert.equal(made.status, 201, await made.text())
    await using _relay = await startRelay(node.region)
    const where = { databaseUrl: node.region.databaseUrl, dataDir: node.region.config.dataDir }
    const { child } = await frozenNode(t, 'webhooks', where)
    await eventually('the planner to begin at the end of the log', () =>
      ownReaderPosition(node.region.db, 'webhooks'),
    )
    await client.pushImage('a', testImage(), 'v1')
    await eventually('the delivery to be in progress', () => ids.length === 1)
    await freeze(child)
    await using _webhooks = await startWebhooks(node.region)
    await eventually('another sender to send the delivery', () => ids.length > 1, GO_ON_MS_MAX)
    assert.equal(ids[1], ids[0], 'under the same ID')
  })
})

test('pushes that wait for a held lock do not exhaust the pool, and return 503', async (t) => {
  const node = await storeNode(t)
  const client = ociClient(node.url)
  const image = testImage()
  await client.pushImage('held', image, 'v1')
  await client.pushImage('other', image, 'v1')
  const release = Promise.withResolvers<void>()
  const holding = Promise.withResolvers<void>()
  const holder = (async () => {
    const { default: pg } = await import('pg')
    const session = new pg.Client({ connectionString: node.region.databaseUrl })
    await session.connect()
    await session.query(`begin`)
    await session.query(`select from repository where name = 'held' for update`)
    holding.resolve()
    await release.promise
    await session.end()
  })()
  await holding.promise
  let blockedAnswers = 0
  const blocked = Array.from({ length: 24 }, async () => {
    const answer = await client.pushManifest('held', 'v1', image)
    blockedAnswers++
    return answer
  })
  await eventually(
    'some pushes to hold a connection and wait for the lock',
    () => node.region.db.poolSize().total >= 6,
  )
  for (const path of [
    '/v2/other/tags/list',
    '/v2/_catalog',
    '/v2/other/manifests/nothing',
    '/v2/nobody/manifests/v1',
  ])
    assert.ok([200, 404].includes((await client.get(path)).status), path)
  for (let round = 0; round < 8; round++) {
    assert.equal((await client.pushManifest('other', `v${round}`, image)).status, 201)
  }
  assert.equal(blockedAnswers, 0, 'the other requests succeed while the blocked pushes still wait')
  for (const answer of await Promise.all(blocked)) {
    assert.equal(answer.status, 503)
    assert.ok(answer.headers.get('retry-after'))
  }
  release.resolve()
  await holder
  assert.equal((await client.pushManifest('held', 'v2', image)).status, 201)
})
