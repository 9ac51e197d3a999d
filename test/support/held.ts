// Leases for tests of work that runs under a lease: held forever, or lost at a given step.

import { type Held, LeaseLostError } from '#shared/db/lease.ts'

/** A lease that is never lost. */
export const HELD: Held = Object.freeze({ requireHeld: () => {} })

/** A lease that is lost once `lost` returns true. */
export function heldUntil(lost: () => boolean): Held {
  return {
    requireHeld() {
      if (lost()) throw new LeaseLostError('the lease was lost')
    },
  }
}
