// Settings of the janitor.

import { integer } from './parsers.ts'
import { DAY_SECONDS, type Values, variable } from './variable.ts'

export const janitorVariables = Object.freeze({
  PORTOLAN_ORPHAN_GRACE_SECONDS: variable(
    integer({ min: 1, max: 90 * DAY_SECONDS }),
    '172800',
    "Age at which bytes without a database row are removed. The age is measured by the store's clock.",
  ),
  PORTOLAN_SWEEP_SECONDS: variable(
    integer({ min: 1, max: DAY_SECONDS }),
    '300',
    'How often the janitor looks for expired uploads and orphaned bytes.',
  ),
})

export interface JanitorConfig {
  readonly orphanGraceSeconds: number
  readonly sweepSeconds: number
}

export function janitorConfig(values: Values<typeof janitorVariables>): JanitorConfig {
  return {
    orphanGraceSeconds: values.PORTOLAN_ORPHAN_GRACE_SECONDS,
    sweepSeconds: values.PORTOLAN_SWEEP_SECONDS,
  }
}
