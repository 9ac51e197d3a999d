// A Node stream as a ByteSink: each write resolves when the kernel has the bytes and their memory may be used again.

import type { Writable } from 'node:stream'
import type { ByteSink } from './blob-store.ts'

/** The receiver went away before it had everything. */
export class SinkClosedError extends Error {
  override readonly name = 'SinkClosedError'
}

/**
 * One write at a time. `onProgress` is told the bytes that left. Listens for the stream's end once, not per write;
 * dispose it when the last write has resolved.
 */
export function writableSink(
  stream: Writable,
  onProgress: (bytes: number) => void = () => {},
): ByteSink & Disposable {
  let pending: { resolve: () => void; reject: (error: Error) => void } | undefined
  const closed = () => {
    pending?.reject(new SinkClosedError('the receiver went away'))
    pending = undefined
  }
  stream.on('close', closed)
  stream.on('error', closed)
  return {
    write(chunk) {
      if (stream.destroyed) return Promise.reject(new SinkClosedError('the receiver went away'))
      return new Promise<void>((resolve, reject) => {
        pending = { resolve, reject }
        stream.write(chunk, (error) => {
          pending = undefined
          if (error) reject(new SinkClosedError('the receiver went away', { cause: error }))
          else {
            onProgress(chunk.length)
            resolve()
          }
        })
      })
    },
    [Symbol.dispose]() {
      stream.off('close', closed)
      stream.off('error', closed)
    },
  }
}
