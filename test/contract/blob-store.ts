// The contract of BlobStore as one suite. The test of each implementation calls it with a function that opens a new
// store.
// tests: shared/blobs/blob-store.ts, shared/blobs/objects/object-service.ts

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, type TestContext, test } from 'node:test'
import {
  type BlobStore,
  type ByteSink,
  EMPTY_SESSION,
  type StoredSession,
  StoreError,
} from '#shared/blobs/blob-store.ts'
import type { DigestAlgorithm } from '#shared/oci/digest.ts'
import { sha256, sha512 } from '../support/image.ts'

const signal = new AbortController().signal

export async function append(
  store: BlobStore,
  session: StoredSession,
  bytes: Buffer,
  algorithm: DigestAlgorithm = 'sha256',
  chunkBytes = 64 * 1024,
): Promise<StoredSession> {
  await using attempt = await store.begin(session, { algorithm })
  for (let from = 0; from < bytes.length; from += chunkBytes) {
    await attempt.write(Buffer.from(bytes.subarray(from, from + chunkBytes)))
  }
  const appended = await attempt.finish()
  // Store the session the way its row does. From here on, the session depends on this attempt.
  await attempt.joined()
  return JSON.parse(JSON.stringify(appended)) as StoredSession
}

/** A sink that copies what it receives, as a socket does. */
export function collector(): ByteSink & { bytes(): Buffer } {
  const chunks: Buffer[] = []
  return {
    write: async (chunk) => {
      chunks.push(Buffer.from(chunk))
    },
    bytes: () => Buffer.concat(chunks),
  }
}

async function received(store: BlobStore, key: string, start: number, end: number): Promise<Buffer> {
  const sink = collector()
  await store.send(key, { start, end }, sink, signal)
  return sink.bytes()
}

/**
 * With `marker: false`, no other owner is possible, so the store has no marker. `mib` scales the sizes down for a store
 * of small objects: the number of bytes used as one MiB.
 */
export function blobStoreContract(
  name: string,
  open: (t: TestContext) => Promise<BlobStore>,
  options: { marker?: boolean; mib?: number } = {},
): void {
  const noMarker = options.marker === false
  const MIB = options.mib ?? 1024 * 1024
  const SIZES = [1, 65_535, MIB / 2 - 1, MIB / 2, MIB / 2 + 1, 5 * MIB + 3, 40 * MIB]
  describe(`${name} implements the BlobStore contract`, () => {
    for (const size of SIZES) {
      test(`${size} bytes in one attempt are returned unchanged and not read at completion`, async (t) => {
        const store = await open(t)
        const bytes = randomBytes(size)
        const session = await append(store, EMPTY_SESSION, bytes)
        assert.equal(session.size, size)
        assert.equal(session.digest, sha256(bytes))
        const { object, surplus, fresh } = await store.complete(session, { algorithm: 'sha256' })
        assert.deepEqual([object.size, object.digest, fresh], [size, sha256(bytes), false])
        assert.deepEqual(new Set([object.key, ...surplus]), new Set(store.keysOf(session.parts)))
        assert.equal(sha256(await received(store, object.key, 0, size - 1)), sha256(bytes))
        assert.equal(sha256(await store.read(object.key, size)), sha256(bytes))
      })
    }

    test('an empty session completes as an object of zero bytes', async (t) => {
      const store = await open(t)
      const { object } = await store.complete(EMPTY_SESSION, { algorithm: 'sha512' })
      assert.equal(object.digest, sha512(''))
      assert.equal((await store.read(object.key, 0)).length, 0)
    })

    test('an attempt without bytes leaves the session unchanged and no object behind', async (t) => {
      const store = await open(t)
      const before = await append(store, EMPTY_SESSION, randomBytes(10))
      assert.deepEqual(await append(store, before, Buffer.alloc(0)), before)
      assert.equal((await store.list('', 10)).length, 1)
    })

    test('several attempts are joined in order, and their leftover objects are reported as surplus', async (t) => {
      const store = await open(t)
      const parts = [randomBytes(100), randomBytes(3 * MIB), randomBytes(1)]
      let session = EMPTY_SESSION
      for (const part of parts) session = await append(store, session, part)
      assert.equal(session.digest, null)
      const { object, surplus, fresh } = await store.complete(session, { algorithm: 'sha256' })
      const whole = Buffer.concat(parts)
      assert.deepEqual([object.digest, object.size], [sha256(whole), whole.length])
      const held = fresh ? surplus : [object.key, ...surplus]
      assert.deepEqual(new Set(held), new Set(store.keysOf(session.parts)))
      assert.equal(sha256(await received(store, object.key, 0, whole.length - 1)), sha256(whole))
      await store.remove([object.key, ...surplus])
      assert.deepEqual(await store.list('', 10), [])
    })

    test('a digest with a different algorithm than the upload used is computed at completion', async (t) => {
      const store = await open(t)
      const bytes = randomBytes(1000)
      const { object } = await store.complete(await append(store, EMPTY_SESSION, bytes), {
        algorithm: 'sha512',
      })
      assert.equal(object.digest, sha512(bytes))
      const late = await store.complete(await append(store, EMPTY_SESSION, bytes, 'sha512'), {
        algorithm: 'sha256',
      })
      assert.equal(late.object.digest, sha256(bytes))
    })

    test('every range is exact', async (t) => {
      const store = await open(t)
      const bytes = randomBytes(3 * MIB + 17)
      const { object } = await store.complete(await append(store, EMPTY_SESSION, bytes), {
        algorithm: 'sha256',
      })
      const last = bytes.length - 1
      for (const [start, end] of [
        [0, 0],
        [last, last],
        [0, last],
        [1, 2 * MIB],
        [MIB - 1, MIB],
        [65_535, 65_537],
      ] as const) {
        assert.ok(
          (await received(store, object.key, start, end)).equals(bytes.subarray(start, end + 1)),
          `${start}-${end}`,
        )
      }
    })

    test('an attempt that is aborted, disposed or lost leaves no object', async (t) => {
      const store = await open(t)
      const aborted = await store.begin(EMPTY_SESSION, { algorithm: 'sha256' })
      await aborted.write(randomBytes(MIB))
      await aborted.abort()
      await aborted.abort()
      {
        await using disposed = await store.begin(EMPTY_SESSION, { algorithm: 'sha256' })
        await disposed.write(randomBytes(10))
      }
      const lost = await store.begin(EMPTY_SESSION, { algorithm: 'sha256' })
      await lost.write(randomBytes(10))
      await lost.finish()
      await lost.abort()
      assert.deepEqual(await store.list('', 10), [])
    })

    test('concurrent attempts on one session do not interfere', async (t) => {
      const store = await open(t)
      const base = await append(store, EMPTY_SESSION, Buffer.from('base-'))
      const sessions = await Promise.all(
        ['one', 'two', 'three'].map((text) => append(store, base, Buffer.from(text))),
      )
      for (const [index, text] of ['one', 'two', 'three'].entries()) {
        const session = sessions[index]
        assert.ok(session)
        const { object } = await store.complete(session, { algorithm: 'sha256' })
        assert.equal(String(await store.read(object.key, object.size)), `base-${text}`)
      }
    })

    test('abandoning a session removes its objects and can be repeated', async (t) => {
      const store = await open(t)
      const session = await append(store, await append(store, EMPTY_SESSION, randomBytes(5)), randomBytes(5))
      await store.abandon(session)
      await store.abandon(session)
      assert.deepEqual(await store.list('', 10), [])
    })

    test('a read fails if the object size differs from the size in the row', async (t) => {
      const store = await open(t)
      const { object } = await store.complete(await append(store, EMPTY_SESSION, randomBytes(100)), {
        algorithm: 'sha256',
      })
      await assert.rejects(store.read(object.key, 99), StoreError)
      await assert.rejects(store.read(object.key, 101), StoreError)
      await assert.rejects(store.send(object.key, { start: 0, end: 100 }, collector(), signal), StoreError)
      await store.remove([object.key])
      await assert.rejects(
        store.read(object.key, 100),
        (error) => error instanceof StoreError && error.kind === 'missing',
      )
      await store.remove([object.key])
    })

    test('stat returns the size of an object, or undefined if there is none', async (t) => {
      const store = await open(t)
      for (const size of [0, 1, 300_000, 12 * MIB]) {
        const session = size === 0 ? EMPTY_SESSION : await append(store, EMPTY_SESSION, randomBytes(size))
        const { object } = await store.complete(session, { algorithm: 'sha256' })
        const found = await store.stat(object.key)
        assert.equal(found?.size, size)
        assert.deepEqual(await store.stat(object.key), found, 'unchanged while nothing is written')
        assert.equal(found.version !== undefined, store.statIsLocal)
        await store.remove([object.key])
        assert.equal(await store.stat(object.key), undefined)
      }
      assert.equal(await store.stat('f'.repeat(32)), undefined)
    })

    test('a session whose bytes are gone is lost, and the upload must begin again', async (t) => {
      const store = await open(t)
      const isLost = (error: unknown) => error instanceof StoreError && error.kind === 'lost'
      const whole = await append(store, EMPTY_SESSION, randomBytes(1000))
      await store.remove(store.keysOf(whole.parts))
      await assert.rejects(store.complete(whole, { algorithm: 'sha512' }), isLost, 'while hashing again')
      let parts = EMPTY_SESSION
      for (let part = 0; part < 3; part++) parts = await append(store, parts, randomBytes(1000))
      const rest = store.keysOf(parts.parts)
      if (rest.length === 0) return
      await store.remove(rest)
      await assert.rejects(store.complete(parts, { algorithm: 'sha256' }), isLost, 'while joining')
    })

    test('sending stops when the signal aborts or when the sink rejects', async (t) => {
      const store = await open(t)
      const { object } = await store.complete(await append(store, EMPTY_SESSION, randomBytes(8 * MIB)), {
        algorithm: 'sha256',
      })
      const range = { start: 0, end: 8 * MIB - 1 }
      const abort = new AbortController()
      let writes = 0
      const aborting: ByteSink = {
        write: async () => {
          if (++writes === 2) abort.abort(new Error('gone'))
        },
      }
      await assert.rejects(store.send(object.key, range, aborting, abort.signal), /gone/)
      assert.ok(writes <= 3)
      const refusing: ByteSink = { write: () => Promise.reject(new Error('refused')) }
      await assert.rejects(store.send(object.key, range, refusing, signal), /refused/)
    })

    for (const [what, sizes] of [
      ['a small and a large one', [300_000, 12 * MIB]],
      ['a large one and small ones', [12 * MIB + 5, 70_000, 1, 300_000]],
      ['chunks of half a megabyte', Array.from({ length: 25 }, () => 500_000)],
      ['large ones', [6 * MIB, 11 * MIB, 5 * MIB]],
      ['whole parts', [5 * MIB, 10 * MIB, 256 * 1024]],
    ] as const) {
      test(`an upload in pieces (${what}), continued from its row each time, is complete`, async (t) => {
        const store = await open(t)
        const pieces = sizes.map((size) => randomBytes(size))
        let session = EMPTY_SESSION
        for (const piece of pieces) session = await append(store, session, piece)
        const whole = Buffer.concat(pieces)
        assert.equal(session.size, whole.length)
        const { object, surplus } = await store.complete(session, { algorithm: 'sha256' })
        assert.deepEqual([object.digest, object.size], [sha256(whole), whole.length])
        assert.ok((await received(store, object.key, 0, whole.length - 1)).equals(whole))
        await store.remove([object.key, ...surplus])
        assert.deepEqual(await store.list('', 10), [])
      })
    }

    test('completing twice, as after a lost response, returns the same object', async (t) => {
      const store = await open(t)
      const session = await append(store, EMPTY_SESSION, randomBytes(11 * MIB))
      const first = await store.complete(session, { algorithm: 'sha256' })
      assert.deepEqual((await store.complete(session, { algorithm: 'sha256' })).object, first.object)
    })

    test('a body of declared length uses no more memory than that, and may be shorter', async (t) => {
      const store = await open(t)
      for (const announced of [1, 1000, 5 * MIB, 6 * MIB]) {
        const bytes = randomBytes(Math.min(announced, 1000))
        await using attempt = await store.begin(EMPTY_SESSION, { algorithm: 'sha256', length: announced })
        await attempt.write(Buffer.from(bytes))
        const session = await attempt.finish()
        const { object } = await store.complete(session, { algorithm: 'sha256' })
        assert.ok((await store.read(object.key, object.size)).equals(bytes))
      }
    })

    test('list returns objects in byte order, in pages, each once', async (t) => {
      const store = await open(t)
      for (let count = 0; count < 25; count++) await append(store, EMPTY_SESSION, randomBytes(count + 1))
      const keys: string[] = []
      for (let after = ''; ; ) {
        const page = await store.list(after, 10)
        assert.ok(page.length <= 10)
        keys.push(...page.map(({ key }) => key))
        const last = page.at(-1)
        if (last === undefined) break
        after = last.key
      }
      assert.equal(keys.length, 25)
      assert.deepEqual(keys, [...new Set(keys)].sort())
    })

    // A store inside the region's database has no marker to be claimed by.
    const withMarker = noMarker ? () => undefined : test
    withMarker('the marker is written once unless replaced, and is not an object', async (t) => {
      const store = await open(t)
      assert.equal(await store.readMarker(), undefined)
      await store.writeMarker('one', { replace: false })
      await store.writeMarker('two', { replace: false })
      assert.equal(await store.readMarker(), 'one')
      await store.writeMarker('three', { replace: true })
      assert.equal(await store.readMarker(), 'three')
      assert.deepEqual(await store.list('', 10), [])
      await append(store, EMPTY_SESSION, randomBytes(3))
      assert.equal((await store.list('', 10)).length, 1)
    })

    withMarker(
      'of several concurrent claims of a store one wins, and all read the same marker',
      async (t) => {
        const store = await open(t)
        const read = await Promise.all(
          Array.from({ length: 6 }, async (_, index) => {
            await store.writeMarker(`starter ${index}`, { replace: false })
            return store.readMarker()
          }),
        )
        assert.equal(new Set(read).size, 1, read.join(', '))
        assert.match(read[0] ?? '', /^starter \d$/)
      },
    )

    test("the store's clock matches its objects' times, and reading it leaves no object", async (t) => {
      const store = await open(t)
      const before = await store.nowMs()
      await append(store, EMPTY_SESSION, randomBytes(3))
      const [object] = await store.list('', 10)
      assert.ok(object)
      const after = await store.nowMs()
      // Some stores report whole seconds.
      assert.ok(before - 1_000 <= object.modifiedAtMs && object.modifiedAtMs <= after + 1_000)
      assert.equal((await store.list('', 10)).length, 1)
    })

    test('the probe succeeds and leaves no object', async (t) => {
      const store = await open(t)
      await store.check()
      assert.deepEqual(await store.list('', 10), [])
    })
  })
}
