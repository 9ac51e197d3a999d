// A BlobStore in the region's own database: the bytes of small blobs in rows, under keys like those of files.
//
// Configs, signatures and SBOM stubs are a few KB, and every image has one. Here such a blob costs one commit and no
// request to an object store, pulls come from the same memory as before, and a region can send it along with its
// manifest. Larger blobs stay out of the database, because they would fill its memory and its log.
//
// The push of a small blob does not use this store: its bytes and its rows are one statement
// (shared/db/commit-blob.ts). Reads, moves, repairs, and blobs that another region sends use it. An attempt is held in
// memory, up to `bytesMax`, and becomes a row when it is finished. Several attempts are joined into a new row. Ages
// come from the database's clock.
//
// No other database can own this store: it is the same database whose rows name it, and its marker says so.

import { randomBytes } from 'node:crypto'
import {
  type BlobStore,
  EMPTY_SESSION,
  type StoredSession,
  StoreError,
  type StoreOwner,
} from '#shared/blobs/blob-store.ts'
import { orLost } from '#shared/blobs/lost-session.ts'
import { markerOf } from '#shared/blobs/store-owner.ts'
import { digestBytes } from '#shared/oci/digest.ts'
import {
  databaseNowMs,
  insertBlobBytes,
  listBlobBytes,
  readBlobBytes,
  removeBlobBytes,
  sizeOfBlobBytes,
} from './blob-bytes.ts'
import { meansUnreachable } from './failures.ts'
import type { Queryable } from './statement.ts'

export const ROW_STORE = 'postgres'

/** One attempt as the session's notes describe it. */
interface RowPart {
  readonly key: string
  readonly size: number
}

export interface RowStoreOptions {
  /** For writes. */
  db: Queryable
  reads: Queryable
  owner: StoreOwner
  /** The maximum for one attempt, and for a session. Both are in memory. */
  bytesMax: number
}

/** A key of this store. Never reused. */
export function newRowKey(): string {
  return randomBytes(16).toString('hex')
}

export function createRowStore({ db, reads, owner, bytesMax }: RowStoreOptions): BlobStore {
  async function insert(bytes: Buffer): Promise<string> {
    const key = newRowKey()
    await storing(insertBlobBytes(db, { key, bytes }))
    return key
  }

  async function read(key: string, size: number): Promise<Buffer> {
    const bytes = await storing(readBlobBytes(reads, key))
    if (bytes === undefined) throw new StoreError('missing', `there is no row of bytes ${key}`)
    if (bytes.length !== size)
      throw new StoreError('corrupt', `the row ${key} has ${bytes.length} bytes, not ${size}`)
    return bytes
  }

  const readParts = async (parts: readonly RowPart[]) =>
    Buffer.concat(await Promise.all(parts.map(({ key, size }) => orLost(read(key, size)))))

  const remove = (keys: readonly string[]) => storing(removeBlobBytes(db, keys))

  return {
    name: ROW_STORE,
    place: "the region's database",

    async begin(session, { algorithm, signal }) {
      signal?.throwIfAborted()
      const parts = partsOf(session)
      const chunks: Buffer[] = []
      let size = 0
      let key: string | undefined
      const abort = async () => {
        chunks.length = 0
        if (key !== undefined) await remove([key])
      }
      let finished = false
      return {
        async write(chunk) {
          size += chunk.length
          if (session.size + size > bytesMax) {
            throw new RangeError(`a blob of more than ${bytesMax} bytes does not belong into the database`)
          }
          chunks.push(chunk)
        },
        async finish() {
          finished = true
          if (size === 0) return session
          const bytes = Buffer.concat(chunks.splice(0))
          key = await insert(bytes)
          return {
            size: session.size + size,
            digest: parts.length === 0 ? digestBytes(algorithm, bytes) : null,
            parts: [...parts, { key, size }],
          }
        },
        joined: async () => {},
        keys: () => (key === undefined ? [] : [key]),
        abort,
        async [Symbol.asyncDispose]() {
          if (!finished) await abort()
        },
      }
    },

    async complete(session, { algorithm }) {
      const parts = partsOf(session)
      const [only] = parts
      if (only !== undefined && parts.length === 1) {
        const known = session.digest?.startsWith(`${algorithm}:`) ? session.digest : null
        const digest = known ?? digestBytes(algorithm, await readParts(parts))
        return { object: { ...only, digest }, surplus: [], fresh: false }
      }
      const bytes = await readParts(parts)
      const object = { key: await insert(bytes), size: bytes.length, digest: digestBytes(algorithm, bytes) }
      return { object, surplus: parts.map(({ key }) => key), fresh: true }
    },

    abandon: (session) => remove(partsOf(session).map(({ key }) => key)),
    remove,
    read,

    async send(key, { start, end }, sink, signal) {
      signal.throwIfAborted()
      const size = await storing(sizeOfBlobBytes(reads, key))
      if (size !== undefined && end >= size) {
        throw new StoreError('corrupt', `the row ${key} has ${size} bytes, not ${end + 1}`)
      }
      const bytes = await read(key, size ?? 0)
      for (let from = start; from <= end; from += SEND_BYTES) {
        signal.throwIfAborted()
        await sink.write(bytes.subarray(from, Math.min(from + SEND_BYTES, end + 1)))
      }
    },

    statIsLocal: false,
    async stat(key) {
      const size = await storing(sizeOfBlobBytes(reads, key))
      return size === undefined ? undefined : { size }
    },

    keysOf: (parts) => (parts as readonly RowPart[]).map(({ key }) => key),
    list: (after, limit) => storing(listBlobBytes(reads, { after, limit })),
    dropUnfinished: async () => 0,
    readMarker: async () => markerOf({ ...owner, founded: true }),
    writeMarker: async () => {},
    nowMs: () => storing(databaseNowMs(reads)),
    url: async () => undefined,
    proxyPath: async () => undefined,
    check: async () => void (await storing(databaseNowMs(reads))),
    [Symbol.asyncDispose]: async () => {},
  }
}

const SEND_BYTES = 64 * 1024

function partsOf(session: StoredSession): readonly RowPart[] {
  return (session === EMPTY_SESSION ? [] : session.parts) as readonly RowPart[]
}

/** A database that does not answer proves nothing about its content. */
async function storing<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (thrown) {
    if (!meansUnreachable(thrown)) throw thrown
    throw new StoreError('unavailable', 'the database does not answer', { cause: thrown })
  }
}
