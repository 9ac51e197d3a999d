// BlobStore on a directory: one file per attempt, written once, never reopened for writing.
//
//   <directory>/<first two of key>/<key>      key: 32 hex digits of randomness
//   <directory>/portolan-store.json           the marker: identifies the owner of the store
//   <directory>/<first two of key>/<key>.probe   written briefly by a check; never listed
//   <directory>/clock                         written to read the clock of the file system
//
// Durable means: the file's data and its directory entry are synced before `finish` or `complete` resolves. A key is
// random and used once, so a process that is suspended during a commit and resumes later cannot change committed
// content. A session of one attempt is already its object. Several attempts are copied together and hashed again when
// the upload ends, because a writer may not append to a file that another node is reading. A file that is shorter than
// its row says is 'corrupt' and is never sent as if it were complete.

import { randomBytes } from 'node:crypto'
import { constants, type Stats } from 'node:fs'
import { copyFile, link, mkdir, open, readdir, readFile, rename, stat } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { createDigester, type Digest, type DigestAlgorithm } from '#shared/oci/digest.ts'
import {
  type Attempt,
  type AttemptOptions,
  type BlobStore,
  type ByteSink,
  type Completion,
  EMPTY_SESSION,
  type ListedObject,
  MARKER_NAME,
  type ObjectStat,
  type StoredSession,
  StoreError,
} from '../blob-store.ts'
import type { ByteBudget } from '../byte-budget.ts'
import { orLost } from '../lost-session.ts'
import { createDirectorySyncer, type DirectorySyncer } from './directory-sync.ts'
import { pumpFile, shortFile } from './file-pump.ts'
import { createOpenFiles } from './open-files.ts'
import { createVolume, type Volume } from './volume.ts'
import { createWriteOnceFile, unlinkIfThere, type WriteOnceFile } from './write-once-file.ts'

const KEY = /^[0-9a-f]{32}$/

/** One attempt, as recorded in the session. */
interface FilePart {
  readonly key: string
  readonly size: number
}

export interface FileStoreOptions {
  directory: string
  /** Buffers for downloads and concatenations. */
  budget: ByteBudget
  /**
   * Uploads leave at least this much space free, so that pulls and the database keep working. Bytes; 0 refuses nothing.
   */
  freeBytesMin: number
  /** The volume of the directory if others watch it too; otherwise one is created. */
  volume?: Volume
}

export async function openFileStore(options: FileStoreOptions): Promise<BlobStore> {
  const { directory, budget } = options
  const directories = createDirectorySyncer()
  const openFiles = createOpenFiles()
  await makeDirectories(directory, directories)
  const volume = options.volume ?? createVolume({ directory, floorBytes: options.freeBytesMin })
  const markerPath = join(directory, MARKER_NAME)

  const pathOf = (key: string): string => {
    if (!KEY.test(key)) throw new StoreError('corrupt', 'not a key of the file store')
    return join(directory, key.slice(0, 2), key)
  }

  /** Creates a file for `length` bytes; if the length is unknown, the file may grow further. */
  async function create(
    algorithm: DigestAlgorithm,
    { length = 0, suffix = '' }: { length?: number | undefined; suffix?: string } = {},
  ): Promise<{ key: string; file: WriteOnceFile }> {
    const key = randomBytes(16).toString('hex')
    const space = await volume.admit(length)
    try {
      const path = `${pathOf(key)}${suffix}`
      return { key, file: await createWriteOnceFile(path, { algorithm, directories, space }) }
    } catch (thrown) {
      space[Symbol.dispose]()
      throw thrown
    }
  }

  async function begin(session: StoredSession, begun: AttemptOptions): Promise<Attempt> {
    begun.signal?.throwIfAborted()
    const { key, file } = await storing(() => create(begun.algorithm, { length: begun.length }))
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
      keys: () => [key],
      abort,
      async [Symbol.asyncDispose]() {
        if (!finished) await abort()
      },
    }
  }

  /** Copies the parts in order into a new file. */
  async function concatenate(parts: readonly FilePart[], options: AttemptOptions): Promise<Completion> {
    const total = parts.reduce((sum, { size }) => sum + size, 0)
    const { key, file } = await create(options.algorithm, { length: total })
    try {
      // The pump reuses its buffers, and the file keeps the chunks it is given. So each chunk is copied.
      const sink: ByteSink = { write: (chunk) => file.write(Buffer.from(chunk)) }
      for (const part of parts) await readPart(part, sink, options)
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
    await readPart(part, sink, options)
    return digester.digest()
  }

  function readPart(part: FilePart, sink: ByteSink, { signal }: AttemptOptions): Promise<void> {
    return orLost(send(part.key, { start: 0, end: part.size - 1 }, sink, signal ?? NEVER_ABORTED))
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
    await storing(async () => {
      using file = await openFiles.open(pathOf(key))
      await pumpFile({ handle: file.handle, range, sink, signal, budget })
    })
  }

  async function writeMarker(text: string, { replace }: { replace: boolean }): Promise<void> {
    const draft = `${markerPath}.${randomBytes(8).toString('hex')}`
    const handle = await open(draft, 'wx', 0o600)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    try {
      if (replace) await rename(draft, markerPath)
      else await placeIfAbsent(draft, markerPath)
    } finally {
      await unlinkIfThere(draft)
    }
    await directories.sync(directory)
  }

  /** Overwrites one byte in place. This works on a full disk too, where removing bytes is most urgent. */
  async function nowMs(): Promise<number> {
    const handle = await open(join(directory, 'clock'), constants.O_CREAT | constants.O_RDWR, 0o600)
    try {
      await handle.write('.', 0)
      // On a network file system the clock of the server counts, so the write must reach the server.
      await handle.sync()
      return (await handle.stat()).mtimeMs
    } finally {
      await handle.close()
    }
  }

  return {
    name: 'file',
    place: `the blob directory ${directory}`,
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

    statIsLocal: true,
    stat: (key) =>
      storing(async () => {
        const path = pathOf(key)
        const found = openFiles.stat(path)
        return found === undefined ? statKey(path) : factsOf(found)
      }),

    keysOf: (parts) => (parts as readonly FilePart[]).map(({ key }) => key),

    list: (after, limit) => storing(() => listFiles(directory, after, limit)),

    readMarker: () =>
      storing(async () => {
        try {
          return await readFile(markerPath, 'utf8')
        } catch (thrown) {
          if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return undefined
          throw thrown
        }
      }),
    writeMarker: (text, options) => storing(() => writeMarker(text, options)),
    nowMs: () => storing(nowMs),

    dropUnfinished: async () => 0,
    url: async () => undefined,
    proxyPath: async (key) => `/${relative(directory, pathOf(key))}`,

    check: () =>
      storing(async () => {
        const { file } = await create('sha256', { suffix: '.probe' })
        try {
          await file.write(Buffer.from('probe'))
          await file.finish()
        } finally {
          await file.drop()
        }
      }),

    async [Symbol.asyncDispose]() {
      await openFiles[Symbol.asyncDispose]()
      await directories[Symbol.asyncDispose]()
    },
  }
}

const NEVER_ABORTED = new AbortController().signal

function partsOf(session: StoredSession): readonly FilePart[] {
  return (session === EMPTY_SESSION ? [] : session.parts) as readonly FilePart[]
}

/** Creates all 256 directories at start and syncs each entry, so that no push has to create one. */
async function makeDirectories(directory: string, directories: DirectorySyncer): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const present = new Set(await readdir(directory))
  const names = Array.from({ length: 256 }, (_, value) => value.toString(16).padStart(2, '0'))
  const absent = names.filter((name) => !present.has(name))
  // Several processes may start on a new directory at the same time.
  for (const name of absent) await mkdir(join(directory, name), { recursive: true, mode: 0o700 })
  if (absent.length > 0) await directories.sync(directory)
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

/**
 * An object is only reported as missing if the store is there. Its directories are created at start and never removed.
 */
async function statKey(path: string): Promise<ObjectStat | undefined> {
  const found = await statIfThere(path)
  if (found?.isFile()) return factsOf(found)
  if ((await statIfThere(dirname(path))) !== undefined) return undefined
  throw new StoreError('unavailable', 'the blob directory lacks its folders: is its file system mounted?')
}

function factsOf(found: Stats): ObjectStat {
  return { size: found.size, version: `${found.ino} ${found.mtimeMs} ${found.ctimeMs}` }
}

/**
 * A link is atomic. If the file system does not support links, the file is copied, and a crash may truncate the copy.
 */
async function placeIfAbsent(draft: string, path: string): Promise<void> {
  try {
    await link(draft, path).catch((thrown: NodeJS.ErrnoException) => {
      if (thrown.code === 'EEXIST') throw thrown
      return copyFile(draft, path, constants.COPYFILE_EXCL)
    })
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown
  }
}

async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw thrown
  }
}

/** Maps system errors to kinds of StoreError. An error that is not listed may be temporary. */
const KINDS: Readonly<Record<string, StoreError['kind']>> = Object.freeze({
  ENOENT: 'missing',
  ENOSPC: 'full',
  EDQUOT: 'full',
  EACCES: 'denied',
  EPERM: 'denied',
  EROFS: 'denied',
  // The file exists, but the medium cannot read it.
  EIO: 'corrupt',
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
