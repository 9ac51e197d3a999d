// Sends one request body to an object store. The body is hashed as it arrives and collected into parts. Each part is
// sent while the next one fills.
//
// A body that fits into one part is one object in one request, and is final if nothing follows. A larger body becomes
// an upload in parts directly to the final key. Its last bytes may be too few to stand before further parts (S3: 5 MiB,
// GCS: multiples of 256 KiB), and it is not known whether more will come. So they are sent as the provisional last part
// and also kept readable (in a separate object or in the session's row). An upload that ends here is complete without
// another request. An upload that continues begins by reading them back.
//
// The design held the last full part back instead. That keeps up to ten megabytes in memory for every client that
// pauses, five hundred for fifty of them. This method keeps what was sent since the last part, and nothing between
// requests.

import { randomBytes } from 'node:crypto'
import { createDigester, type Digester } from '#shared/oci/digest.ts'
import { type Attempt, type AttemptOptions, type StoredSession, StoreError } from '../blob-store.ts'
import { freeMemory } from '../free-memory.ts'
import { orLost } from '../lost-session.ts'
import { readWhole } from './object-read.ts'
import type { ObjectService, PartUpload } from './object-service.ts'
import type { PartBuffers } from './part-buffers.ts'
import { notesOf, type PartNotes, restKey, settledParts } from './part-session.ts'

/** Calls to the service with retries and time limits; made by part-store.ts. */
export interface Asking {
  ask<T>(work: (signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T>
  /** Removes bytes that are no longer needed. Tries once; what cannot be removed now is left to the orphan sweep. */
  tidy(work: (signal: AbortSignal) => Promise<void>): Promise<void>
}

const NEVER_ABORTED = new AbortController().signal

export function newKey(): string {
  return randomBytes(16).toString('hex')
}

export class PartAttempt implements Attempt {
  readonly #service: ObjectService
  readonly #asking: Asking
  readonly #buffers: PartBuffers
  readonly #before: StoredSession
  readonly #notes: PartNotes
  readonly #digester: Digester
  readonly #signal: AbortSignal
  /** Announced bytes that are in no buffer yet; undefined: the length is unknown. */
  #left: number | undefined
  #upload: PartUpload | undefined
  /** True if this attempt began the upload: dropping the attempt then drops the upload. */
  #began = false
  readonly #parts: { tag: string; size: number }[]
  #offset: number
  #buffer: Buffer | undefined
  #filled = 0
  #received = 0
  #sending: Promise<void> = Promise.resolve()
  #failure: unknown
  #made: string[] = []
  #done = false

  constructor(options: {
    service: ObjectService
    asking: Asking
    buffers: PartBuffers
    session: StoredSession
    begun: AttemptOptions
  }) {
    const { service, asking, buffers, session, begun } = options
    this.#service = service
    this.#asking = asking
    this.#buffers = buffers
    this.#before = session
    this.#notes = notesOf(session)
    this.#digester = createDigester(begun.algorithm)
    this.#signal = begun.signal ?? NEVER_ABORTED
    this.#left = begun.length
    this.#upload = this.#notes.upload
    this.#parts = [...settledParts(this.#notes)]
    this.#offset = this.#parts.reduce((sum, { size }) => sum + size, 0)
  }

  async write(chunk: Buffer): Promise<void> {
    if (chunk.length === 0) return
    if (this.#received === 0) await this.#takeBack()
    this.#received += chunk.length
    for (let rest = chunk; rest.length > 0; ) rest = rest.subarray(await this.#collect(rest))
    this.#digester.update(chunk)
    freeMemory(chunk)
  }

  /** Puts the rest of the previous attempt at the front of this one. */
  async #takeBack(): Promise<void> {
    const { rest } = this.#notes
    if (rest === undefined) return
    const bytes =
      'base64' in rest
        ? Buffer.from(rest.base64, 'base64')
        : await orLost(this.#asking.ask((signal) => readWhole(this.#service, rest, signal), this.#signal))
    if (this.#left !== undefined) this.#left += bytes.length
    for (let left = bytes; left.length > 0; ) left = left.subarray(await this.#collect(left))
  }

  /** Copies as much as fits. A full buffer is sent only when more bytes arrive, because it may be the whole blob. */
  async #collect(bytes: Buffer): Promise<number> {
    if (this.#buffer !== undefined && this.#filled === this.#buffer.length) await this.#sendFull()
    this.#buffer ??= await this.#nextBuffer()
    const taken = Math.min(bytes.length, this.#buffer.length - this.#filled)
    bytes.copy(this.#buffer, this.#filled, 0, taken)
    this.#filled += taken
    if (this.#left !== undefined) this.#left -= taken
    return taken
  }

  async #nextBuffer(): Promise<Buffer> {
    const partBytes = this.#service.partBytes(this.#parts.length + 1)
    if (partBytes === undefined) throw new StoreError('full', 'the blob has more parts than the store takes')
    const known = this.#left !== undefined && this.#left > 0
    return this.#buffers.take(known ? Math.min(partBytes, this.#left ?? 0) : partBytes, this.#signal)
  }

  async #sendFull(): Promise<void> {
    const buffer = this.#buffer
    if (buffer === undefined) return
    this.#buffer = undefined
    this.#filled = 0
    await this.#send(buffer, buffer)
  }

  /**
   * Waits for the previous part, then sends this one concurrently with what follows. The buffer is returned when it is
   * sent.
   */
  async #send(body: Buffer, buffer: Buffer): Promise<void> {
    try {
      await this.#sending
      if (this.#failure !== undefined) throw this.#failure
      this.#upload ??= await this.#begin()
    } catch (thrown) {
      this.#buffers.give(buffer)
      throw thrown
    }
    const upload = this.#upload
    const part = { number: this.#parts.length + 1, offset: this.#offset, body }
    const entry = { tag: '', size: body.length }
    this.#parts.push(entry)
    this.#offset += body.length
    this.#sending = this.#asking
      .ask((signal) => this.#service.putPart(upload, part, signal), this.#signal)
      .then(
        (tag) => {
          entry.tag = tag
        },
        (thrown: unknown) => {
          this.#failure = thrown
        },
      )
      .finally(() => this.#buffers.give(buffer))
  }

  async #begin(): Promise<PartUpload> {
    const key = newKey()
    this.#began = true
    return this.#asking.ask((signal) => this.#service.startUpload(key, signal), this.#signal)
  }

  async finish(): Promise<StoredSession> {
    if (this.#received === 0) {
      this.#done = true
      return this.#before
    }
    const rest = await this.#sendRest()
    this.#done = true
    const notes: PartNotes = {
      ...(this.#upload !== undefined && { upload: this.#upload }),
      parts: this.#parts,
      ...(rest !== undefined && { rest }),
    }
    return {
      size: this.#before.size + this.#received,
      digest: this.#before.size === 0 ? this.#digester.digest() : null,
      parts: [notes],
    }
  }

  async #sendRest(): Promise<PartNotes['rest']> {
    const buffer = this.#buffer
    if (buffer === undefined) throw new Error('bytes were received and none is left')
    const bytes = buffer.subarray(0, this.#filled)
    this.#buffer = undefined
    if (this.#upload === undefined) {
      try {
        return await this.#putObject(bytes)
      } finally {
        this.#buffers.give(buffer)
      }
    }
    const { part, rest } = this.#service.split(bytes.length)
    const kept = Buffer.from(bytes.subarray(part))
    const keep = rest === 0 || this.#service.rest === 'row' ? undefined : this.#putObject(kept)
    // An error is handled below. Until then it must not count as unhandled.
    keep?.catch(() => {})
    const sent = keep === undefined ? bytes.subarray(0, part) : bytes
    if (sent.length > 0) await this.#send(sent, buffer)
    else this.#buffers.give(buffer)
    await this.#sending
    const object = await keep
    if (this.#failure !== undefined) throw this.#failure
    if (rest === 0) return undefined
    return object ?? { base64: kept.toString('base64') }
  }

  async #putObject(bytes: Buffer): Promise<{ key: string; size: number }> {
    const key = newKey()
    this.#made.push(key)
    await this.#asking.ask((signal) => this.#service.put(key, bytes, signal), this.#signal)
    return { key, size: bytes.length }
  }

  async joined(): Promise<void> {
    const superseded = restKey(this.#notes)
    if (superseded !== undefined && this.#received > 0) {
      await this.#asking.tidy((signal) => this.#service.remove([superseded], signal))
    }
  }

  keys(): readonly string[] {
    return this.#upload === undefined ? this.#made : [...this.#made, this.#upload.key]
  }

  async abort(): Promise<void> {
    this.#done = true
    await this.#sending
    if (this.#buffer !== undefined) this.#buffers.give(this.#buffer)
    this.#buffer = undefined
    const upload = this.#began ? this.#upload : undefined
    this.#began = false
    const made = this.#made
    this.#made = []
    if (upload !== undefined) await this.#asking.tidy((signal) => this.#service.dropUpload(upload, signal))
    if (made.length > 0) await this.#asking.tidy((signal) => this.#service.remove(made, signal))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#done) await this.abort()
  }
}
