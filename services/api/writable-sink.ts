// A Node stream as a ByteSink. Each write resolves when the kernel has the bytes and their memory may be reused.

import type { Writable } from 'node:stream'
import type { ByteSink } from '../../shared/blobs/blob-store.ts'

/** The receiver disconnected before it had received everything. */
export class SinkClosedError extends Error {
  override readonly name = 'SinkClosedError'
}

/**
 * One write at a time. `onProgress` receives the number of bytes sent. Listens for the end of the stream once, not per
 * write. Dispose it when the last write has resolved.
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
  /** Resolves when the last chunk, and so each one before it, has been sent. */
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
      // When corked, several chunks are one system call.
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
