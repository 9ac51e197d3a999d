// One of several processes that compete for a data directory. On each 'try' it reports whether it got the directory,
// and keeps it until 'release' or until it dies.
//
//   node lock-contender.ts DIRECTORY

import { lockDirectory } from '#shared/embedded/directory-lock.ts'

const [directory = ''] = process.argv.slice(2)
let release: (() => Promise<void>) | undefined
process.on('message', async (message) => {
  if (message === 'release') {
    await release?.()
    release = undefined
    process.send?.('released')
    return
  }
  try {
    release = await lockDirectory(directory, { waitMs: 100 })
    process.send?.('won')
  } catch (thrown) {
    process.send?.({ refused: (thrown as Error).message })
  }
})
process.send?.('here')
