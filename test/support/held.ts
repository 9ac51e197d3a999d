// Leases for tests of work that is done under one: held for ever, or lost at a step.

import { type Held, LeaseLostError } from '#shared/db/lease.ts'

/** Nobody else is at work. */
export const HELD: Held = Object.freeze({ requireHeld: () => {} })

/** A lease that is lost as soon as `lost` says so. */
export function heldUntil(lost: () => boolean): Held {
  return {
    requireHeld() {
      if (lost()) throw new LeaseLostError('the lease was lost')
    },
  }
}
