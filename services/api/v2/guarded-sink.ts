// The body of a reply as a sink. It counts the bytes for the log, and a client that is slower than the minimum rate is
// disconnected.

import type { ByteSink } from '#shared/blobs/blob-store.ts'
import type { Exchange } from '../exchange.ts'
import { writableSink } from '../writable-sink.ts'

/** Dispose it after the last write. */
export function guardedSink(exchange: Exchange): Required<ByteSink> & Disposable {
  const { edge, response } = exchange
  const watch = edge.rateGuard.watch(() => response.destroy())
  const sink = writableSink(response, (bytes) => {
    watch.progress(bytes)
    exchange.bodyBytes += bytes
  })
  return {
    ...sink,
    [Symbol.dispose]() {
      sink[Symbol.dispose]()
      watch[Symbol.dispose]()
    },
  }
}
