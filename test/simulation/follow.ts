// How a simulated region follows the log of another: in order, each event once, and gaps are filled from the log
// itself.

import { isForgottenEvent } from '#shared/convergence/forgetting.ts'
import { advance, deriveLinks, merge, raised, type SimulatedRegion, writtenOf } from './region.ts'

/**
 * Rule R8: events that were applied are dropped, the next ones are applied, and missing ones are fetched from the
 * origin's log.
 */
export function apply(to: SimulatedRegion, from: SimulatedRegion, batch: SimulatedRegion['log']): void {
  for (const { ref, fact } of batch) {
    const index = from.log.findIndex((logged) => logged.ref.epoch === ref.epoch && logged.ref.seq === ref.seq)
    const missing = from.log.slice(nextIndex(to, from), index)
    if (to.broken !== 'holes-are-skipped') for (const before of missing) applyOne(to, from, before)
    if (index >= nextIndex(to, from)) applyOne(to, from, { ref, fact })
  }
  deriveLinks(to.repository)
}

function applyOne(
  to: SimulatedRegion,
  from: SimulatedRegion,
  { ref, fact }: SimulatedRegion['log'][number],
): void {
  const { version, written } = writtenOf(fact)
  if (
    to.broken === 'what-is-logged-again-is-merged' ||
    !isForgottenEvent(to, { version, written }, ref.epoch)
  )
    merge(to, fact, [ref])
  advance(to, from.name, ref)
  to.applied[version.origin] = raised(to.applied[version.origin], written)
}

/**
 * The first event of the origin's log that was not applied. Each epoch is checked separately, because epoch numbers
 * have no order.
 */
export function nextIndex(to: SimulatedRegion, from: SimulatedRegion): number {
  const applied = to.cursors[from.name] ?? []
  const index = from.log.findIndex(
    ({ ref }) => !applied.some(({ epoch, seq }) => epoch === ref.epoch && ref.seq <= seq),
  )
  return index === -1 ? from.log.length : index
}
