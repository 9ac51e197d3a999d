// Every twentieth history of the simulation also runs on real Postgres, with the real statements of pushes, deletes,
// the relay and merges. It must end in the same registers, show the same content and find the same conflicts. A seed
// replays: `SIMULATION_SEED=n SIMULATION_SQL=1 npm test -- test/simulation/sql`.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { killedUnseen, lostVersions } from '#shared/convergence/conflicts.ts'
import { emptyRepository, identityOf, type Repository, tagValue } from '#shared/convergence/registers.ts'
import type { Version } from '#shared/convergence/version.ts'
import { isRepositoryVisible, isTagVisible } from '#shared/convergence/visibility.ts'
import { repositoryName } from '../support/push.ts'
import { parentsOf } from './content.ts'
import { nameContent } from './sql-content.ts'
import { openSqlRegion, replay, type SqlRegion, stateOf } from './sql-regions.ts'
import { simulate } from './world.ts'

/** Number of the histories of `npm test` that run here; SIMULATION_SQL runs more of them. */
const HISTORIES = Number(process.env.SIMULATION_SQL ?? 30)
const SEED = Number(process.env.SIMULATION_SEED ?? 706_000)
const EVERY = 20

test('real databases end as the simulated regions do', async (t) => {
  t.diagnostic(`seeds ${SEED} to ${SEED + EVERY * (HISTORIES - 1)}, every ${EVERY}th`)
  const names = nameContent()
  const regions = new Map<string, SqlRegion>()
  for (const name of ['ap', 'eu', 'sa', 'us']) regions.set(name, await openSqlRegion(t, name))
  let [operations, conflicts] = [0, 0]
  for (let nth = 0; nth < HISTORIES; nth++) {
    const seed = SEED + EVERY * nth
    const outcome = simulate(seed)
    const repository = repositoryName(`seed-${seed}`)
    const taking = new Map(outcome.regions.map(({ name }) => [name, regions.get(name) as SqlRegion]))
    const history = { repository, names, regions: taking, nowMs: Date.now() }
    await replay(history, outcome.operations).catch((thrown) => {
      throw new Error(`seed ${seed}`, { cause: thrown })
    })
    for (const simulated of outcome.regions) {
      const region = regions.get(simulated.name) as SqlRegion
      const found = await stateOf(history, region)
      const pure = simulated.repository
      const expected = {
        registers: registersText(pure, (name) => name),
        exists: isRepositoryVisible(pure),
        tags: [...pure.tags.keys()].filter((name) => isTagVisible(pure, name, parentsOf)).toSorted(),
        lost: lostIn(pure),
        killed: killedIn(pure),
      }
      const actual = {
        ...found,
        // A region without writes that has heard of nothing has no row.
        registers: registersText(found.registers ?? emptyRepository(), names.nameOf),
      }
      assert.deepEqual(actual, expected, `seed ${seed}, region ${simulated.name}`)
      conflicts += expected.lost.length + expected.killed.length
    }
    operations += outcome.operations.length
  }
  t.diagnostic(`${operations} operations, ${conflicts} conflicts`)
  assert.ok(HISTORIES < 20 || conflicts > HISTORIES, 'histories without conflicts prove nothing')
})

/**
 * Every register that regions must agree on, one per line. What a register records of events is checked through
 * conflicts.
 */
function registersText(repository: Repository, nameOf: (digest: string) => string): string[] {
  const { dead, manifests, links, tags } = repository
  const lines = [`repository dead ${text(dead.version)}`]
  for (const [digest, one] of manifests)
    lines.push(
      `manifest ${nameOf(digest)} ${text(one.alive.version)} over ${text(one.alive.prev)} dead ${text(one.dead.version)}`,
    )
  for (const [digest, one] of links)
    lines.push(`link ${nameOf(digest)} ${text(one.alive)} dead ${text(one.dead.version)}`)
  for (const [name, { history }] of tags)
    for (const one of history.values())
      lines.push(`tag ${name} ${nameOf(one.digest)} ${one.alive} ${text(one.version)} over ${text(one.prev)}`)
  return lines.filter((line) => !/^(manifest|link) \S+ 0 .*dead 0 $/.test(line)).toSorted()
}

function text({ h, origin }: Version): string {
  return `${h} ${origin}`
}

function lostIn({ tags }: Repository): string[] {
  return [...tags]
    .flatMap(([name, register]) => lostVersions(register).map((one) => `${name} ${identityOf(one)}`))
    .toSorted()
}

function killedIn({ tags, manifests, dead: whole }: Repository): string[] {
  const writes = [
    ...[...tags].flatMap(([subject, { history }]) =>
      [...history.values()].map((one) => ({ ...one, subject, value: tagValue(one) })),
    ),
    ...[...manifests].map(([digest, { alive }]) => ({ ...alive, subject: digest, digest, value: '' })),
  ].filter(({ version }) => version.h > 0n)
  return writes
    .flatMap((write) =>
      [manifests.get(write.digest)?.dead, whole]
        .filter((death) => death !== undefined && death.version.h > 0n)
        .filter((death) => death !== undefined && killedUnseen(death, write) === true)
        .map((death) => `${write.subject} ${text(write.version)} by ${death && text(death.version)}`),
    )
    .toSorted()
}
