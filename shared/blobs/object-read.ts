// Reading from an object store: whole small objects, and streams that survive a connection that dies.
//
// A stream that breaks is taken up where it stopped, by range: keys are never written twice, so the rest is of the
// same object. It gives up when nothing arrives for a while, or when several connections in a row bring nothing; then
// the receiver's connection is broken too, and never ends as if it were whole.

import { type ByteSink, StoreError } from './blob-store.ts'
import type { ObjectService } from './object-service.ts'
import { orAborted } from './retry.ts'

/** Connections in a row that may bring no byte. */
const FRUITLESS_MAX = 3

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
    for await (const chunk of abortable(body, signal)) {
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
 * Sends bytes start..end to the sink, all of them and in order, or rejects.
 * `open` gets one connection from a position on, with the retries that opening deserves.
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
    let failure: unknown
    const chunks = abortable(body, signal, stallMs)[Symbol.asyncIterator]()
    try {
      for (;;) {
        const { value: chunk, done } = await chunks.next().catch((thrown: unknown) => {
          failure = thrown
          return { value: undefined, done: true as const }
        })
        if (done || chunk === undefined) break
        if (position + chunk.length > range.end + 1) throw wrongSize(chunk.length, range.end - position + 1)
        // What the sink throws is the receiver's trouble and ends everything.
        await sink.write(chunk)
        position += chunk.length
      }
    } finally {
      body.destroy()
    }
    signal.throwIfAborted()
    if (position > range.end) return
    fruitless = position === before ? fruitless + 1 : 0
    if (fruitless >= FRUITLESS_MAX) {
      throw new StoreError('unavailable', 'the store broke off a body again and again', { cause: failure })
    }
  }
}

/** The chunks; rejects when the signal aborts, or when the next one does not come within `stallMs`. */
async function* abortable(
  body: AsyncIterable<Buffer>,
  signal: AbortSignal,
  stallMs?: number,
): AsyncGenerator<Buffer> {
  const chunks = body[Symbol.asyncIterator]()
  for (;;) {
    const next = chunks.next()
    next.catch(() => {})
    const { value, done } = await (stallMs === undefined
      ? orAborted(next, signal)
      : withStall(orAborted(next, signal), stallMs))
    if (done) return
    yield value
  }
}

function withStall<T>(work: Promise<T>, stallMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no byte came for ${stallMs} ms`)), stallMs)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

function wrongSize(actual: number, wanted: number): StoreError {
  return new StoreError('corrupt', `the store has ${actual} bytes where ${wanted} were recorded`)
}
