// BlobStore on a directory: one file per attempt, written once, never reopened for writing.
//
//   <directory>/<first two of key>/<key>      key: 32 hex digits of randomness
//
// Durable means: the file's data and its directory entry are synced before `finish` or `complete` resolves. A key is
// random and used once, so nothing that sleeps through a commit and wakes up can touch what was committed. A session
// of one attempt is already its object; several are copied together, hashed anew, when the upload ends, because a
// writer may not append to what another node is reading. A file that is shorter than its row says is 'corrupt' and
// is never sent as if it were whole.

import { randomBytes } from 'node:crypto'
import { mkdir, open, readdir, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { createDigester, type Digest, type DigestAlgorithm } from '#shared/oci/digest.ts'
import {
  type Attempt,
  type AttemptOptions,
  type BlobStore,
  type ByteSink,
  type Completion,
  EMPTY_SESSION,
  type ListedObject,
  type StoredSession,
  StoreError,
} from './blob-store.ts'
import type { ByteBudget } from './byte-budget.ts'
import { createDirectorySyncer, type DirectorySyncer } from './directory-sync.ts'
import { pumpFile, shortFile } from './file-pump.ts'
import { createWriteOnceFile, unlinkIfThere, type WriteOnceFile } from './write-once-file.ts'

/** Free space is asked of the file system at most this often. */
const FREE_SPACE_TTL_MS = 1_000
const KEY = /^[0-9a-f]{32}$/

/** One attempt as the session remembers it. */
interface FilePart {
  readonly key: string
  readonly size: number
}

export interface FileStoreOptions {
  directory: string
  /** Buffers for downloads and concatenations. */
  budget: ByteBudget
  /** Below this much free space no attempt begins: pulls and the database go on. Bytes. */
  freeBytesMin: number
}

export async function openFileStore(options: FileStoreOptions): Promise<BlobStore> {
  const { directory, budget } = options
  const directories = createDirectorySyncer()
  await makeDirectories(directory, directories)
  let freeBytes = { value: Number.POSITIVE_INFINITY, asOfMs: Number.NEGATIVE_INFINITY }

  const pathOf = (key: string): string => {
    if (!KEY.test(key)) throw new StoreError('corrupt', 'not a key of the file store')
    return join(directory, key.slice(0, 2), key)
  }

  async function requireSpace(): Promise<void> {
    const nowMs = performance.now()
    if (nowMs - freeBytes.asOfMs > FREE_SPACE_TTL_MS) {
      const { bavail, bsize } = await statfs(directory)
      freeBytes = { value: bavail * bsize, asOfMs: nowMs }
    }
    if (freeBytes.value < options.freeBytesMin) {
      throw new StoreError('full', `less than ${options.freeBytesMin} bytes are free in the blob directory`)
    }
  }

  async function create(algorithm: DigestAlgorithm): Promise<{ key: string; file: WriteOnceFile }> {
    const key = randomBytes(16).toString('hex')
    return { key, file: await createWriteOnceFile(pathOf(key), { algorithm, directories }) }
  }

  async function begin(session: StoredSession, begun: AttemptOptions): Promise<Attempt> {
    begun.signal?.throwIfAborted()
    await requireSpace()
    const { key, file } = await storing(() => create(begun.algorithm))
    const parts = partsOf(session)
    let finished = false
    const abort = async () => {
      finished = true
      await file.drop()
    }
    return {
      write: (chunk) => storing(() => file.write(chunk)),
      async finish() {
        const { size, digest } = await storing(() => file.finish())
        finished = true
        if (size === 0) {
          await file.drop()
          return session
        }
        return {
          size: session.size + size,
          digest: parts.length === 0 ? digest : null,
          parts: [...parts, { key, size }],
        }
      },
      joined: async () => {},
      abort,
      async [Symbol.asyncDispose]() {
        if (!finished) await abort()
      },
    }
  }

  /** Copies the parts, in order, into a new file. */
  async function concatenate(parts: readonly FilePart[], options: AttemptOptions): Promise<Completion> {
    await requireSpace()
    const { key, file } = await create(options.algorithm)
    try {
      // The pump reuses its buffers; the file keeps what it is given.
      const sink: ByteSink = { write: (chunk) => file.write(Buffer.from(chunk)) }
      for (const part of parts) {
        await send(part.key, { start: 0, end: part.size - 1 }, sink, options.signal ?? NEVER_ABORTED)
      }
      const { size, digest } = await file.finish()
      return { object: { key, size, digest }, surplus: parts.map(({ key }) => key), fresh: true }
    } catch (thrown) {
      await file.drop()
      throw thrown
    }
  }

  async function rehash(part: FilePart, options: AttemptOptions): Promise<Digest> {
    const digester = createDigester(options.algorithm)
    const sink: ByteSink = { write: async (chunk) => digester.update(chunk) }
    await send(part.key, { start: 0, end: part.size - 1 }, sink, options.signal ?? NEVER_ABORTED)
    return digester.digest()
  }

  const remove = (keys: readonly string[]) =>
    storing(async () => {
      for (const key of keys) await unlinkIfThere(pathOf(key))
    })

  async function send(
    key: string,
    range: { start: number; end: number },
    sink: ByteSink,
    signal: AbortSignal,
  ): Promise<void> {
    const handle = await storing(() => open(pathOf(key), 'r'))
    try {
      await pumpFile({ handle, range, sink, signal, budget })
    } finally {
      await handle.close()
    }
  }

  return {
    name: 'file',
    begin,
    send,

    complete: (session, completed) =>
      storing(async () => {
        const parts = partsOf(session)
        const [only] = parts
        if (only === undefined || parts.length > 1) return concatenate(parts, completed)
        const known = session.digest?.startsWith(`${completed.algorithm}:`) ? session.digest : null
        const digest = known ?? (await rehash(only, completed))
        return { object: { key: only.key, size: only.size, digest }, surplus: [], fresh: false }
      }),

    abandon: (session) => remove(partsOf(session).map(({ key }) => key)),
    remove,

    read: (key, size) =>
      storing(async () => {
        const handle = await open(pathOf(key), 'r')
        try {
          const buffer = Buffer.allocUnsafeSlow(size + 1)
          let filled = 0
          while (filled < buffer.length) {
            const { bytesRead } = await handle.read(buffer, filled, buffer.length - filled, filled)
            if (bytesRead === 0) break
            filled += bytesRead
          }
          if (filled !== size) throw shortFile()
          return buffer.subarray(0, size)
        } finally {
          await handle.close()
        }
      }),

    keysOf: (parts) => (parts as readonly FilePart[]).map(({ key }) => key),

    list: (after, limit) => storing(() => listFiles(directory, after, limit)),

    dropUnfinished: async () => 0,
    url: async () => undefined,

    check: () =>
      storing(async () => {
        await requireSpace()
        const { file } = await create('sha256')
        try {
          await file.write(Buffer.from('probe'))
          await file.finish()
        } finally {
          await file.drop()
        }
      }),

    [Symbol.asyncDispose]: () => directories[Symbol.asyncDispose](),
  }
}

const NEVER_ABORTED = new AbortController().signal

function partsOf(session: StoredSession): readonly FilePart[] {
  return (session === EMPTY_SESSION ? [] : session.parts) as readonly FilePart[]
}

/** All 256 directories exist from the start, each entry synced: no push has to make one. */
async function makeDirectories(directory: string, directories: DirectorySyncer): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const present = new Set(await readdir(directory))
  if (present.size >= 256) return
  for (let value = 0; value < 256; value++) {
    const name = value.toString(16).padStart(2, '0')
    // Several processes may start on a new directory at once.
    if (!present.has(name)) await mkdir(join(directory, name), { recursive: true, mode: 0o700 })
  }
  await directories.sync(directory)
}

async function listFiles(directory: string, after: string, limit: number): Promise<ListedObject[]> {
  const listed: ListedObject[] = []
  for (let value = after === '' ? 0 : Number.parseInt(after.slice(0, 2), 16); value < 256; value++) {
    const name = value.toString(16).padStart(2, '0')
    const keys = (await readdir(join(directory, name))).filter((key) => KEY.test(key) && key > after).sort()
    for (const key of keys) {
      const found = await statIfThere(join(directory, name, key))
      if (found !== undefined) listed.push({ key, size: found.size, modifiedAtMs: found.mtimeMs })
      if (listed.length === limit) return listed
    }
  }
  return listed
}

async function statIfThere(path: string): Promise<{ size: number; mtimeMs: number } | undefined> {
  try {
    return await stat(path)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw thrown
  }
}

/** Which StoreError a system error is; whatever is not listed may pass by itself. */
const KINDS: Readonly<Record<string, StoreError['kind']>> = Object.freeze({
  ENOENT: 'missing',
  ENOSPC: 'full',
  EDQUOT: 'full',
  EACCES: 'denied',
  EPERM: 'denied',
  EROFS: 'denied',
})

async function storing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (thrown) {
    const code = (thrown as NodeJS.ErrnoException).code
    if (typeof code !== 'string' || thrown instanceof StoreError || (thrown as Error).name === 'AbortError') {
      throw thrown
    }
    throw new StoreError(KINDS[code] ?? 'unavailable', `the blob directory answered ${code}`, {
      cause: thrown,
    })
  }
}
