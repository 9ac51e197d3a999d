// A file that is written once, front to back, hashed during the write, and durable when it is finished: its data and
// its directory entry are synced. Chunks are collected into large writes. Hashing one block overlaps with the kernel
// writing the previous one, so at most two blocks are in memory.

import { constants } from 'node:fs'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { createDigester, type Digest, type DigestAlgorithm, type Digester } from '#shared/oci/digest.ts'
import { freeMemory } from '../free-memory.ts'
import type { DirectorySyncer } from './directory-sync.ts'
import type { Admission } from './volume.ts'

/** Chunks are collected to this many bytes and then written in one call. */
const WRITE_BYTES = 512 * 1024

/** Creates the file, which must not exist. Its space is counted by the admission, which ends with the file. */
export async function createWriteOnceFile(
  path: string,
  options: { algorithm: DigestAlgorithm; directories: DirectorySyncer; space: Admission },
): Promise<WriteOnceFile> {
  const { algorithm, directories, space } = options
  const handle = await open(path, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o600)
  return new WriteOnceFile({ path, handle, directories, space, digester: createDigester(algorithm) })
}

export class WriteOnceFile {
  readonly #path: string
  readonly #handle: FileHandle
  readonly #digester: Digester
  readonly #directories: DirectorySyncer
  readonly #space: Admission
  #collected: Buffer[] = []
  #collectedBytes = 0
  #size = 0
  #writing: Promise<void> = Promise.resolve()
  #failure: unknown
  #closed = false

  constructor(options: {
    path: string
    handle: FileHandle
    digester: Digester
    directories: DirectorySyncer
    space: Admission
  }) {
    this.#path = options.path
    this.#handle = options.handle
    this.#digester = options.digester
    this.#directories = options.directories
    this.#space = options.space
  }

  /** Takes ownership of the chunk's memory, which is freed as soon as its bytes are hashed and written. */
  async write(chunk: Buffer): Promise<void> {
    this.#collected.push(chunk)
    this.#collectedBytes += chunk.length
    if (this.#collectedBytes >= WRITE_BYTES) await this.#flush()
  }

  /** Hashing overlaps with the kernel writing the previous block. At most two blocks are in memory. */
  async #flush(): Promise<void> {
    const chunks = this.#collected
    const bytes = this.#collectedBytes
    this.#collected = []
    this.#collectedBytes = 0
    await this.#space.expect(bytes)
    await this.#writing
    if (this.#failure !== undefined) throw this.#failure
    const position = this.#size
    this.#size += bytes
    this.#writing = writeAll(this.#handle, chunks, position).then(
      () => {
        this.#space.written(bytes)
        // The chunks were hashed while the kernel wrote them.
        for (const chunk of chunks) freeMemory(chunk)
      },
      (thrown: unknown) => {
        this.#failure = thrown
      },
    )
    for (const chunk of chunks) this.#digester.update(chunk)
  }

  async finish(): Promise<{ size: number; digest: Digest }> {
    if (this.#collectedBytes > 0) await this.#flush()
    await this.#writing
    if (this.#failure !== undefined) throw this.#failure
    await this.#handle.datasync()
    await this.#close()
    await this.#directories.sync(dirname(this.#path))
    return { size: this.#size, digest: this.#digester.digest() }
  }

  async drop(): Promise<void> {
    await this.#writing
    await this.#close()
    await unlinkIfThere(this.#path)
  }

  async #close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#space[Symbol.dispose]()
    await this.#handle.close()
  }
}

/** writev may write fewer bytes than it was given. */
async function writeAll(handle: FileHandle, chunks: Buffer[], from: number): Promise<void> {
  let rest = chunks
  let position = from
  while (rest.length > 0) {
    const { bytesWritten } = await handle.writev(rest, position)
    position += bytesWritten
    rest = without(rest, bytesWritten)
  }
}

function without(chunks: Buffer[], bytes: number): Buffer[] {
  let left = bytes
  const rest: Buffer[] = []
  for (const chunk of chunks) {
    if (left >= chunk.length) left -= chunk.length
    else {
      rest.push(left > 0 ? chunk.subarray(left) : chunk)
      left = 0
    }
  }
  return rest
}

/** Removes a file. A missing file is not an error. */
export async function unlinkIfThere(path: string): Promise<void> {
  try {
    await unlink(path)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown
  }
}
