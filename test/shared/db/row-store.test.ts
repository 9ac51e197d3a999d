import assert from 'node:assert/strict'
import { after, before, type TestContext, test } from 'node:test'
import { type BlobStore, EMPTY_SESSION, StoreError } from '#shared/blobs/blob-store.ts'
import { judgeOwner } from '#shared/blobs/store-owner.ts'
import { type Database, openDatabase } from '#shared/db/connect.ts'
import { createRowStore, ROW_STORE } from '#shared/db/row-store.ts'
import { append, blobStoreContract } from '../../contract/blob-store.ts'
import { execute, testDatabase } from '../../support/postgres.ts'

const owner = { region: 'eu', database: 'any' }
const hooks: (() => unknown)[] = []
let db: Database
let url: string

before(async () => {
  url = await testDatabase({ after: (hook) => void hooks.push(hook as () => unknown) })
  db = openDatabase({ url, connections: 4, onIdleError: () => {} })
})
after(async () => {
  await db[Symbol.asyncDispose]()
  for (const hook of hooks) await hook()
})

async function open(_t: TestContext, bytesMax = 64 * 1024 * 1024): Promise<BlobStore> {
  await execute(url, 'delete from blob_bytes')
  return createRowStore({ db, reads: db, owner, bytesMax })
}

blobStoreContract('rows', open, { marker: false, mib: 64 * 1024 })

test('an attempt takes no more than it may, and leaves nothing', async (t) => {
  const store = await open(t, 100)
  await using attempt = await store.begin(EMPTY_SESSION, { algorithm: 'sha256' })
  await attempt.write(Buffer.alloc(60))
  await assert.rejects(attempt.write(Buffer.alloc(41)), RangeError)
  await attempt.abort()
  const session = await append(store, EMPTY_SESSION, Buffer.alloc(60))
  await assert.rejects(append(store, session, Buffer.alloc(41)), RangeError)
  assert.equal((await store.list('', 10)).length, 1)
})

test('a database out of reach proves nothing about what is in it', async () => {
  const away = openDatabase({ url: 'postgres://127.0.0.1:1/x', connections: 1, onIdleError: () => {} })
  const store = createRowStore({ db: away, reads: away, owner, bytesMax: 100 })
  for (const asked of [store.stat('a'), store.read('a', 1), store.list('', 1), store.check()]) {
    await assert.rejects(asked, (error) => error instanceof StoreError && error.kind === 'unavailable')
  }
  await away[Symbol.asyncDispose]()
})

test('the store says that it is the database it is in', async (t) => {
  const store = await open(t)
  const facts = { marker: await store.readMarker(), sampled: 0, known: 0, rows: true }
  assert.deepEqual(judgeOwner(facts, owner), { kind: 'owned' })
  assert.equal(store.name, ROW_STORE)
})
