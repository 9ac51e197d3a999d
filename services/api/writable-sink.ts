// A Node stream as a ByteSink: each write resolves when the kernel has the bytes and their memory may be used again.

import type { Writable } from 'node:stream'
import type { ByteSink } from '../../shared/blobs/blob-store.ts'

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
): Required<ByteSink> & Disposable {
  let pending: { resolve: () => void; reject: (error: Error) => void } | undefined
  const closed = () => {
    pending?.reject(new SinkClosedError('the receiver went away'))
    pending = undefined
  }
  stream.on('close', closed)
  stream.on('error', closed)
  /** Resolves when the last chunk, and so each before it, has left. */
  function writeAll(chunks: readonly Buffer[]): Promise<void> {
    if (stream.destroyed) return Promise.reject(new SinkClosedError('the receiver went away'))
    return new Promise<void>((resolve, reject) => {
      pending = { resolve, reject }
      const left = (error: Error | null | undefined) => {
        pending = undefined
        if (error) return reject(new SinkClosedError('the receiver went away', { cause: error }))
        onProgress(chunks.reduce((sum, { length }) => sum + length, 0))
        resolve()
      }
      // Corked, several chunks are one system call.
      if (chunks.length > 1) stream.cork()
      chunks.forEach((chunk, index) => {
        if (index === chunks.length - 1) stream.write(chunk, left)
        else stream.write(chunk)
      })
      if (chunks.length > 1) stream.uncork()
    })
  }
  return {
    write: (chunk) => writeAll([chunk]),
    writeAll,
    [Symbol.dispose]() {
      stream.off('close', closed)
      stream.off('error', closed)
    },
  }
}
