// One of several processes that want the same data directory. On each 'try' it answers whether it got it, and keeps it
// until 'release' or its death.
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
