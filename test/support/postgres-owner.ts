// A process that owns an embedded Postgres until it is stopped or killed.
//
//   node postgres-owner.ts DIRECTORY

import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'

const [directory = ''] = process.argv.slice(2)
const postgres = await startEmbeddedPostgres({ directory })
process.send?.({ pid: postgres.pid(), url: postgres.url })
process.once('message', async () => {
  await postgres[Symbol.asyncDispose]()
  process.disconnect()
})
