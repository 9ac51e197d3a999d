// The contract of BlobStore for each object store, against a real server. Each test uses its own prefix.
// tests: shared/blobs/objects/azure-service.ts, shared/blobs/objects/gcs-service.ts
// tests: shared/blobs/objects/part-attempt.ts, shared/blobs/objects/part-session.ts
// tests: shared/blobs/objects/part-store.ts, shared/blobs/objects/s3-service.ts

import { randomBytes } from 'node:crypto'
import { after, before, describe } from 'node:test'
import type { BlobStore } from '#shared/blobs/blob-store.ts'
import { createByteBudget } from '#shared/blobs/byte-budget.ts'
import { createPartBuffers } from '#shared/blobs/objects/part-buffers.ts'
import { openBlobStore } from '#shared/blobs/open-store.ts'
import { loadConfig } from '#shared/config/load.ts'
import { blobStoreContract } from '../contract/blob-store.ts'
import {
  type ObjectStoreName,
  type ObjectStoreServer,
  recipes,
  startObjectStore,
  withoutStore,
} from '../support/parts/object-stores.ts'

for (const name of Object.keys(recipes) as ObjectStoreName[]) {
  describe(name, { skip: withoutStore(name) }, () => {
    let server: ObjectStoreServer
    before(async () => {
      server = await startObjectStore(name)
      // The default credential chain of the SDK reads these variables.
      for (const [key, value] of Object.entries(server.env))
        if (key.startsWith('AWS_')) process.env[key] = value
    })
    after(() => server[Symbol.asyncDispose]())

    blobStoreContract(name, async (t): Promise<BlobStore> => {
      const prefix = Object.keys(server.env).find((key) => key.endsWith('_PREFIX')) ?? ''
      const env = Object.fromEntries(
        Object.entries(server.env).filter(([key]) => key.startsWith('PORTOLAN_')),
      )
      const config = loadConfig({ ...env, [prefix]: randomBytes(4).toString('hex') })
      const store = await openBlobStore(config.blobs, {
        directory: '',
        freeBytesMin: 0,
        readBudget: createByteBudget({ bytesMax: 2 ** 24 }),
        partBuffers: createPartBuffers({ bytesMax: 2 ** 26 }),
        timeoutMs: 20_000,
      })
      t.after(() => store[Symbol.asyncDispose]())
      return store
    })
  })
}
