// Holds a lease and does its work until told to end: asks whether it is held every few milliseconds, tells its parent what
// it is told, and what the signal said.
//
//   node lease-holder.ts DATABASE_URL NAME SILENCE_MS

import { setTimeout as pause } from 'node:timers/promises'
import { withLease } from '#shared/db/lease.ts'

const [url = '', name = '', silenceMs = ''] = process.argv.slice(2)
const held = await withLease(
  url,
  name,
  async (lost, { requireHeld }) => {
    process.send?.('held')
    for (;;) {
      try {
        requireHeld()
      } catch (thrown) {
        process.send?.({ refused: (thrown as Error).message, aborted: lost.aborted })
        return
      }
      // Work that looks away for no longer than this.
      await pause(1)
    }
  },
  { silenceMs: Number(silenceMs) },
)
process.send?.({ held })
process.disconnect()
