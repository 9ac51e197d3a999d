// A writer to be frozen. It writes part of an attempt and reports to its parent. When resumed, it writes the rest and
// finishes.
//
//   node frozen-writer.ts DIRECTORY

import { EMPTY_SESSION } from '#shared/blobs/blob-store.ts'
import { createByteBudget } from '#shared/blobs/byte-budget.ts'
import { openFileStore } from '#shared/blobs/files/file-store.ts'

const [directory = ''] = process.argv.slice(2)
const store = await openFileStore({
  directory,
  budget: createByteBudget({ bytesMax: 2 ** 24 }),
  freeBytesMin: 0,
})
const attempt = await store.begin(EMPTY_SESSION, { algorithm: 'sha256' })
await attempt.write(Buffer.alloc(1024 * 1024, 'old'))
process.send?.('writing')
await new Promise((go) => process.once('message', go))
await attempt.write(Buffer.alloc(1024 * 1024, 'old'))
await attempt.finish()
process.send?.('finished')
process.disconnect()
