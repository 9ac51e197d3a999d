// tests: shared/blobs/files/directory-sync.ts, shared/blobs/files/file-pump.ts, shared/blobs/files/write-once-file.ts

import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { open as openHandle, readdir, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type BlobStore, EMPTY_SESSION, StoreError } from '#shared/blobs/blob-store.ts'
import { createByteBudget } from '#shared/blobs/byte-budget.ts'
import { createDirectorySyncer } from '#shared/blobs/files/directory-sync.ts'
import { openFileStore } from '#shared/blobs/files/file-store.ts'
import { append, blobStoreContract, collector } from '../../../contract/blob-store.ts'
import { eventually } from '../../../support/eventually.ts'
import { sha256 } from '../../../support/image.ts'
import { testDirectory } from '../../../support/region.ts'

const budget = () => createByteBudget({ bytesMax: 2 ** 24 })

async function open(t: TestContext): Promise<BlobStore> {
  return openFileStore({ directory: await testDirectory(t), budget: budget(), freeBytesMin: 0 })
}

blobStoreContract('the file store', open)

test('a writer that was frozen and wakes up touches nothing that was committed', async (t) => {
  const directory = await testDirectory(t)
  const store = await openFileStore({ directory, budget: budget(), freeBytesMin: 0 })
  const writer = fork(join(import.meta.dirname, '../../../support/frozen-writer.ts'), [directory])
  t.after(() => writer.kill('SIGKILL'))
  await once(writer, 'message')
  writer.kill('SIGSTOP')
  const bytes = Buffer.alloc(3 * 1024 * 1024, 'new')
  const { object } = await store.complete(await append(store, EMPTY_SESSION, bytes), { algorithm: 'sha256' })
  writer.kill('SIGCONT')
  writer.send('go on')
  await once(writer, 'message')
  assert.equal(sha256(await store.read(object.key, object.size)), sha256(bytes))
})

test('a file that was cut behind our back is corrupt, and the receiver is never told that it was whole', async (t) => {
  const directory = await testDirectory(t)
  const store = await openFileStore({ directory, budget: budget(), freeBytesMin: 0 })
  const { object } = await store.complete(await append(store, EMPTY_SESSION, Buffer.alloc(5_000_000, 'x')), {
    algorithm: 'sha256',
  })
  await truncate(join(directory, object.key.slice(0, 2), object.key), 4_000_000)
  const sink = collector()
  await assert.rejects(
    store.send(object.key, { start: 0, end: object.size - 1 }, sink, new AbortController().signal),
    (error) => error instanceof StoreError && error.kind === 'corrupt',
  )
  assert.ok(sink.bytes().length < object.size)
})

test('I6: a key that is not one of ours reaches no path', async (t) => {
  const store = await open(t)
  for (const key of [
    '../../etc/passwd',
    '',
    '/etc/passwd',
    'A'.repeat(32),
    `${'a'.repeat(31)}/`,
    `${'a'.repeat(32)}\0`,
  ]) {
    await assert.rejects(
      store.read(key, 1),
      (error) => error instanceof StoreError && error.kind === 'corrupt',
    )
    await assert.rejects(store.remove([key]), StoreError)
  }
})

test('below the floor of free space no attempt begins, and reading goes on', async (t) => {
  const directory = await testDirectory(t)
  const roomy = await openFileStore({ directory, budget: budget(), freeBytesMin: 0 })
  const session = await append(roomy, EMPTY_SESSION, Buffer.from('kept'))
  const full = await openFileStore({ directory, budget: budget(), freeBytesMin: Number.MAX_SAFE_INTEGER })
  await assert.rejects(
    full.begin(EMPTY_SESSION, { algorithm: 'sha256' }),
    (error) => error instanceof StoreError && error.kind === 'full',
  )
  const { object } = await full.complete(session, { algorithm: 'sha256' })
  assert.equal(String(await full.read(object.key, 4)), 'kept')
})

test('attempts are files of their own in one of 256 directories, never written in place', async (t) => {
  const directory = await testDirectory(t)
  const store = await openFileStore({ directory, budget: budget(), freeBytesMin: 0 })
  assert.equal((await readdir(directory)).length, 256)
  const first = await append(store, EMPTY_SESSION, Buffer.from('a'))
  const second = await append(store, first, Buffer.from('b'))
  assert.equal(new Set(store.keysOf(second.parts)).size, 2)
})

test('a directory sync counts only for those who came before it began: late callers share the next one', async (t) => {
  const directory = await testDirectory(t)
  const probe = await openHandle(directory)
  const prototype = Object.getPrototypeOf(probe) as { sync(): Promise<void> }
  await probe.close()
  const real = prototype.sync
  let syncs = 0
  let finish = () => {}
  t.mock.method(prototype, 'sync', async function (this: unknown) {
    syncs++
    if (syncs === 1) {
      await new Promise<void>((resolve) => {
        finish = resolve
      })
    }
    await real.call(this as never)
  })
  await using directories = createDirectorySyncer()
  const first = directories.sync(directory)
  await eventually('the first sync to begin', () => syncs === 1)
  const late = [directories.sync(directory), directories.sync(directory), directories.sync(directory)]
  assert.equal(syncs, 1)
  finish()
  await Promise.all([first, ...late])
  assert.equal(syncs, 2)
})

test('what is finished was synced: the file and its directory', async (t) => {
  const store = await open(t)
  const probe = await openHandle(await testDirectory(t))
  const prototype = Object.getPrototypeOf(probe) as { sync(): Promise<void>; datasync(): Promise<void> }
  await probe.close()
  const data = t.mock.method(prototype, 'datasync')
  const directory = t.mock.method(prototype, 'sync')
  await append(store, EMPTY_SESSION, Buffer.from('durable'))
  assert.equal(data.mock.callCount(), 1)
  assert.equal(directory.mock.callCount(), 1)
})

test('a check leaves nothing that a listing shows, not even while it runs', async (t) => {
  const directory = await testDirectory(t)
  const store = await openFileStore({
    directory,
    budget: createByteBudget({ bytesMax: 2 ** 20 }),
    freeBytesMin: 0,
  })
  t.after(() => store[Symbol.asyncDispose]())
  let checking = true
  const checks = (async () => {
    for (let round = 0; round < 20; round++) await store.check()
    checking = false
  })()
  while (checking) assert.deepEqual(await store.list('', 10), [])
  await checks
})
