// Regions converge, and know exactly what was lost: some of the histories that `npm run simulation` runs by the
// thousand. It also replays a seed that fails here.
// tests: shared/convergence/conflicts.ts, shared/convergence/forgetting.ts
// tests: shared/convergence/registers.ts, shared/convergence/visibility.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type BrokenRule, KINDS, type Options } from './state.ts'
import { simulate } from './world.ts'

const HISTORIES = 600
/** The histories here are always the same; `npm run simulation` explores others. */
const FIRST_SEED = 706_000

test('regions converge, with exactly the real conflicts, and nothing that was forgotten comes back', (t) => {
  const first = FIRST_SEED
  t.diagnostic(`seeds ${first} to ${first + HISTORIES - 1}`)
  const sum = { conflicts: 0, forgotten: 0, quarantined: 0 }
  for (let seed = first; seed < first + HISTORIES; seed++) {
    const outcome = simulate(seed, KINDS[seed % KINDS.length])
    assert.deepEqual(
      [...outcome.problems, ...outcome.misjudged],
      [],
      `npm run simulation -- --histories 1 --seed ${seed}`,
    )
    sum.conflicts += outcome.conflicts
    sum.forgotten += outcome.forgotten
    sum.quarantined += outcome.quarantined
  }
  t.diagnostic(JSON.stringify(sum))
  assert.ok(sum.conflicts > HISTORIES, 'histories without conflicts prove nothing')
  assert.ok(sum.forgotten > 50, 'histories in which nothing is forgotten prove nothing')
  assert.ok(sum.quarantined > 0, 'histories in which nobody returns prove nothing')
})

const ALL: Options = { restores: true, lifecycle: true }
const broken: readonly (readonly [BrokenRule, Options, firstSeed?: number])[] = [
  ['tombstones-rise', {}],
  ['deaths-forget-early', {}],
  ['writes-trust-the-clock', {}],
  ['holes-are-skipped', {}],
  ['a-start-goes-on-counting', { restores: true }],
  ['forgets-what-peers-lack', ALL],
  ['forgets-what-is-still-to-come', ALL],
  ['forgets-kept-children', ALL],
  ['returners-are-merged', ALL],
  ['what-is-logged-again-is-merged', ALL, 700_347],
]
for (const [rule, options, firstSeed = 0] of broken) {
  test(`the simulation notices when: ${rule.replaceAll('-', ' ')}`, () => {
    const isNoticed = (seed: number) => {
      const { problems, misjudged } = simulate(seed, { ...options, broken: rule })
      return problems.length + misjudged.length > 0
    }
    assert.ok(Array.from({ length: 2_000 }, (_, index) => firstSeed + index).some(isNoticed))
  })
}
