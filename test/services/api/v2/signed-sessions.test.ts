// tests: shared/registry/upload-ids.ts, shared/registry/upload-sessions.ts, shared/db/upload-key.ts
// tests: shared/db/older-releases.ts
//
// Sessions without a row: the Location that POST returns is signed. It creates one session, once, in this region, for a
// limited time.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { openSession } from '#shared/db/session.ts'
import { countUploads } from '#shared/db/uploads.ts'
import { createUploadIds } from '#shared/registry/upload-ids.ts'
import { sha256 } from '../../../support/image.ts'
import { type OciClient, ociClient } from '../../../support/oci-client.ts'
import { repositoryName } from '../../../support/push.ts'
import { type TestNode, testNode } from '../../../support/region.ts'

const METHODS = ['GET', 'PATCH', 'PUT', 'DELETE'] as const

async function begin(client: OciClient, repository = 'a'): Promise<string> {
  const answer = await client.request('POST', `/v2/${repository}/blobs/uploads/`)
  assert.equal(answer.status, 202)
  return answer.headers.get('location') ?? ''
}

/** Uses a session in every way. It is unknown, and stays unknown. */
async function assertUnknown(client: OciClient, location: string): Promise<void> {
  for (const size of [10, 50_000]) {
    for (const method of METHODS) {
      const body = method === 'PATCH' || method === 'PUT' ? { body: randomBytes(size) } : {}
      const target = method === 'PUT' ? `${location}?digest=${sha256('what is not there')}` : location
      const answer = await client.request(method, target, body)
      assert.equal(answer.status, 404, `${method} ${size} ${location}`)
      assert.match(await answer.text(), /BLOB_UPLOAD_UNKNOWN/)
    }
  }
}

describe('a signed Location', () => {
  const hooks: (() => unknown)[] = []
  const cleanup = { after: (hook: () => unknown) => void hooks.push(hook) }
  let first: TestNode
  let second: TestNode
  let client: OciClient
  before(async () => {
    first = await testNode(cleanup)
    second = await testNode(cleanup, { sharing: first })
    client = ociClient(first.url)
  })
  after(async () => {
    for (const hook of hooks.toReversed()) await hook()
  })

  /** The names of the statements that run during the work. */
  async function statements(work: () => Promise<unknown>): Promise<string[]> {
    const { rows } = first.region.db
    const names: string[] = []
    first.region.db.rows = (statement, values) => {
      names.push(statement.name)
      return rows(statement, values)
    }
    try {
      await work()
    } finally {
      first.region.db.rows = rows
    }
    return names
  }

  test('costs no statement; a small first body costs one, and so does its end', async () => {
    await client.pushBlob('a', randomBytes(10))
    let location = ''
    const bytes = randomBytes(4_096)
    const beginning = async () => {
      location = await begin(client)
    }
    assert.deepEqual(await statements(beginning), [])
    assert.equal(await countUploads(first.region.db), 0)
    let next: string | null = ''
    const patching = async () => {
      next = (await client.request('PATCH', location, { body: bytes })).headers.get('location')
    }
    assert.deepEqual(await statements(patching), ['make-upload'])
    const ending = () => client.request('PUT', `${next}?digest=${sha256(bytes)}`)
    assert.deepEqual(await statements(ending), ['commit-small-upload'])
    const other = randomBytes(4_096)
    const location2 = await begin(client)
    const putting = () => client.request('PUT', `${location2}?digest=${sha256(other)}`, { body: other })
    assert.deepEqual(await statements(putting), ['commit-small-of-unborn'])
    for (const blob of [bytes, other])
      assert.deepEqual((await client.get(`/v2/a/blobs/${sha256(blob)}`)).body, blob)
    assert.equal(await countUploads(first.region.db), 0)
  })

  test('is good at every node of the region', async () => {
    for (const size of [10, 50_000]) {
      const bytes = randomBytes(size)
      const location = await begin(client)
      const there = ociClient(second.url)
      const patched = await there.request('PATCH', location, { body: bytes })
      assert.equal(patched.status, 202)
      assert.equal((await client.request('GET', location)).headers.get('range'), `0-${size - 1}`)
      const next = patched.headers.get('location')
      assert.equal((await client.request('PUT', `${next}?digest=${sha256(bytes)}`)).status, 201)
      assert.deepEqual((await there.get(`/v2/a/blobs/${sha256(bytes)}`)).body, bytes)
    }
  })

  test('that was changed anywhere is unknown, and so is one for another repository or region', async () => {
    const location = await begin(client)
    const [, region, uuid = '', state = '', signature = ''] =
      /^\/v2\/a\/blobs\/uploads\/(\w+)\.([^.]+)\.([^.]+)\.([^.]+)$/.exec(location) ?? []
    assert.equal(region, 'eu')
    const other = uuid.startsWith('0') ? `1${uuid.slice(1)}` : `0${uuid.slice(1)}`
    const later = `2${(Number.parseInt(state.slice(1), 36) + 1).toString(36)}`
    const wrong = signature.startsWith('A') ? `B${signature.slice(1)}` : `A${signature.slice(1)}`
    for (const forged of [
      `/v2/a/blobs/uploads/eu.${other}.${state}.${signature}`,
      `/v2/a/blobs/uploads/eu.${uuid}.${later}.${signature}`,
      `/v2/a/blobs/uploads/eu.${uuid}.5${state.slice(1)}.${signature}`,
      `/v2/a/blobs/uploads/eu.${uuid}.${state}.${wrong}`,
      `/v2/a/blobs/uploads/eu.${uuid}.${state}`,
      `/v2/a/blobs/uploads/eu.${uuid}`,
      `/v2/a/blobs/uploads/eu.${uuid}.s`,
      `/v2/a/blobs/uploads/us.${uuid}.${state}.${signature}`,
      `/v2/b/blobs/uploads/eu.${uuid}.${state}.${signature}`,
    ])
      await assertUnknown(client, forged)
    assert.equal(await countUploads(first.region.db), 0)
    assert.equal((await client.request('GET', location)).status, 204, 'the right one is as good as before')
    await client.request('DELETE', location)
  })

  test('of another region with a key of its own is unknown, whatever it is called', async (t) => {
    const other = await testNode(t)
    const location = await begin(ociClient(other.url))
    await assertUnknown(client, location)
  })

  test('that has expired by the clock of the database is unknown', async () => {
    const { db, name } = first.region
    const expired = createUploadIds({ region: name, db, ttlSeconds: -1, trouble: () => false })
    const { id } = await expired.begin({ repository: repositoryName('a'), algorithm: 'sha256' })
    await assertUnknown(client, `/v2/a/blobs/uploads/${id}`)
  })

  test('makes its session once: what ended stays ended, on every node', async () => {
    const there = ociClient(second.url)
    const ends: [string, (location: string) => Promise<Response>, number][] = [
      ['cancelled before a byte', (location) => client.request('DELETE', location), 204],
      [
        'cancelled after some',
        async (location) => {
          await client.request('PATCH', location, { body: 'x' })
          return client.request('DELETE', location)
        },
        204,
      ],
      [
        'wrong digest',
        (location) => client.request('PUT', `${location}?digest=${sha256('y')}`, { body: 'x' }),
        400,
      ],
      [
        'wrong digest of a large body',
        (location) =>
          client.request('PUT', `${location}?digest=${sha256('y')}`, { body: randomBytes(50_000) }),
        400,
      ],
      [
        'nothing, and a digest that is not that of nothing',
        (location) => client.request('PUT', `${location}?digest=${sha256('y')}`),
        400,
      ],
      ['put', (location) => client.request('PUT', `${location}?digest=${sha256('z')}`, { body: 'z' }), 201],
      ['put nothing', (location) => client.request('PUT', `${location}?digest=${sha256('')}`), 201],
    ]
    for (const [what, end, status] of ends) {
      const location = await begin(client)
      assert.equal((await end(location)).status, status, what)
      await assertUnknown(there, location)
    }
    assert.equal(await countUploads(first.region.db), 0)
  })

  test('of first bodies that race one joins, and a closing PUT among them ends the session', async () => {
    for (let round = 0; round < 10; round++) {
      const location = await begin(client)
      const clients = [client, ociClient(second.url)]
      const bodies = Array.from({ length: 6 }, () => randomBytes(round % 2 === 0 ? 100 : 30_000))
      const answers = await Promise.all(
        bodies.map((body, index) => {
          const headers = { 'Content-Range': `0-${body.length - 1}` }
          const target = index % 3 === 0 ? `${location}?digest=${sha256(body)}` : location
          const method = index % 3 === 0 ? 'PUT' : 'PATCH'
          return (clients[index % 2] ?? client).request(method, target, { headers, body })
        }),
      )
      const statuses = answers.map(({ status }) => status)
      assert.equal(statuses.filter((status) => status < 300).length, 1, String(statuses))
      for (const status of statuses) assert.ok([201, 202, 404, 416].includes(status), String(statuses))
      await client.request('DELETE', location)
    }
  })
})

test('while a node of an older release lives sessions have rows, and nothing goes into the database', async (t) => {
  const node = await testNode(t)
  await node.region.db.rows({
    name: 'forget-breaking',
    text: `update schema_migration set breaking = false where name like '%small-blobs'`,
    parameters: [],
  })
  const older = await openSession(node.region.databaseUrl, 'read', { onError: () => {} })
  const OLDER_SCHEMA = 10
  await older.query('select pg_advisory_lock_shared(7065812, $1)', [OLDER_SCHEMA])
  const beside = await testNode(t, { sharing: node })
  const client = ociClient(beside.url)
  const location = await begin(client)
  assert.match(location, /\/eu\.[0-9a-f-]{36}$/, 'an id that the older release knows')
  assert.equal(await countUploads(node.region.db), 1)
  const bytes = randomBytes(100)
  assert.equal((await client.request('PATCH', location, { body: bytes })).status, 202)
  assert.equal((await client.request('PUT', `${location}?digest=${sha256(bytes)}`)).status, 201)
  await client.pushBlob('a', randomBytes(100))
  assert.equal((await beside.region.blobs.list('', 10)).length, 2)
  assert.deepEqual(await beside.region.smallBlobs.store.list('', 10), [])
  await older.end()
  const next = await testNode(t, { sharing: node })
  await ociClient(next.url).pushBlob('a', randomBytes(100))
  assert.equal((await next.region.smallBlobs.store.list('', 10)).length, 1)
  const [row] = await node.region.db.rows<{ breaking: boolean }>({
    name: 'is-breaking',
    text: `select breaking from schema_migration where name like '%small-blobs'`,
    parameters: [],
  })
  assert.equal(row?.breaking, true, 'the older release does not start again')
})
