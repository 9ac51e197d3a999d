// Reads from an object store: whole small objects, and streams that survive a broken connection.
//
// A broken stream resumes by range where it stopped. Keys are never written twice, so the rest belongs to the same
// object. The stream fails if no byte arrives for a while, or if several connections in a row bring none. Then the
// connection to the receiver is broken too, so that a partial body never looks complete.

import type { Readable } from 'node:stream'
import { type ByteSink, StoreError } from '../blob-store.ts'
import { freeMemory } from '../free-memory.ts'
import type { ObjectService } from './object-service.ts'

/** Maximum number of connections in a row that bring no byte. */
const FRUITLESS_MAX = 3
/** Bytes of one stream, read from the store and not yet written to the client. */
const AHEAD_BYTES_MAX = 256 * 1024

/** @throws StoreError 'corrupt' unless the object has exactly `size` bytes */
export async function readWhole(
  service: ObjectService,
  object: { key: string; size: number },
  signal: AbortSignal,
): Promise<Buffer> {
  const { bytes: promised, body } = await service.get(object.key, undefined, signal)
  try {
    if (promised !== object.size) throw wrongSize(promised, object.size)
    const whole = Buffer.allocUnsafeSlow(object.size)
    let filled = 0
    const end = () => body.destroy(signal.reason)
    signal.addEventListener('abort', end, { once: true })
    for await (const chunk of body as AsyncIterable<Buffer>) {
      if (filled + chunk.length > whole.length) throw wrongSize(filled + chunk.length, object.size)
      filled += chunk.copy(whole, filled)
    }
    if (filled !== object.size) throw new Error('the store ended the body early')
    return whole
  } finally {
    body.destroy()
  }
}

/**
 * Sends all bytes start..end to the sink in order, or rejects. `open` opens one connection at a position and retries
 * the opening as needed.
 */
export async function streamTo(
  sink: ByteSink,
  options: {
    range: { start: number; end: number }
    stallMs: number
    signal: AbortSignal
    open(range: { start: number; end: number }): Promise<Awaited<ReturnType<ObjectService['get']>>>
  },
): Promise<void> {
  const { range, stallMs, signal, open } = options
  let position = range.start
  for (let fruitless = 0; position <= range.end; ) {
    signal.throwIfAborted()
    const before = position
    const { bytes: promised, body } = await open({ start: position, end: range.end })
    const expected = range.end - position + 1
    if (promised !== expected) {
      body.destroy()
      throw wrongSize(promised, expected)
    }
    const { failure } = await pour(body, {
      sink,
      signal,
      stallMs,
      take(chunk) {
        position += chunk.length
        if (position > range.end + 1) throw wrongSize(position - before, expected)
      },
    })
    signal.throwIfAborted()
    if (position > range.end) return
    fruitless = position === before ? fruitless + 1 : 0
    if (fruitless >= FRUITLESS_MAX) {
      throw new StoreError('unavailable', 'the store broke off a body again and again', { cause: failure })
    }
  }
}

/**
 * Copies the whole body to the sink. Reading continues, up to a bound, while the sink writes, and the chunks that
 * arrive in the meantime are written together: the chunks of a store are small, and each write has a cost. Resolves
 * when the body has ended, with a failure if it ended early. Rejects if the sink, `take` or the signal throws.
 */
async function pour(
  body: Readable,
  options: { sink: ByteSink; signal: AbortSignal; stallMs: number; take(chunk: Buffer): void },
): Promise<{ failure?: Error }> {
  const { sink, signal, stallMs, take } = options
  let queue: Buffer[] = []
  let queuedBytes = 0
  let ended = false
  let failure: Error | undefined
  let wake = () => {}
  const end = (error?: Error) => {
    ended = true
    failure ??= error
    wake()
  }
  const stall = setTimeout(() => end(new Error(`no byte came for ${stallMs} ms`)), stallMs)
  const abort = () => wake()
  body.on('data', (chunk: Buffer) => {
    queue.push(chunk)
    queuedBytes += chunk.length
    if (queuedBytes >= AHEAD_BYTES_MAX) body.pause()
    stall.refresh()
    wake()
  })
  body.on('end', () => end())
  body.on('error', end)
  body.on('close', () => end(ended ? undefined : new Error('the store ended the body early')))
  signal.addEventListener('abort', abort)
  // The body may have failed before the listeners were added.
  if (body.destroyed) end(body.errored ?? new Error('the store ended the body early'))
  try {
    for (;;) {
      signal.throwIfAborted()
      if (queue.length === 0) {
        if (ended) return failure === undefined ? {} : { failure }
        await new Promise<void>((resolve) => {
          wake = resolve
        })
        continue
      }
      const chunks = queue
      queue = []
      queuedBytes = 0
      for (const chunk of chunks) take(chunk)
      if (sink.writeAll !== undefined) await sink.writeAll(chunks)
      else for (const chunk of chunks) await sink.write(chunk)
      for (const chunk of chunks) freeMemory(chunk)
      // A slow receiver is not a stall of the store.
      stall.refresh()
      if (body.isPaused()) body.resume()
    }
  } finally {
    clearTimeout(stall)
    signal.removeEventListener('abort', abort)
    body.destroy()
  }
}

function wrongSize(actual: number, wanted: number): StoreError {
  return new StoreError('corrupt', `the store has ${actual} bytes where ${wanted} were recorded`)
}
