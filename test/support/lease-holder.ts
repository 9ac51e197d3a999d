// Holds a lease and checks about every millisecond whether it is still held. Reports the outcome to its parent, with
// the state of the abort signal.
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
      // Simulates work that checks the lease at this interval.
      await pause(1)
    }
  },
  { silenceMs: Number(silenceMs) },
)
process.send?.({ held })
process.disconnect()
