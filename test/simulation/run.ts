// Runs many long histories: `npm run simulation -- --histories 10000 --seed 1`. Without a seed, one is drawn. A history
// that fails ends the run. The run then prints its seed, the shortest beginning that still fails, and what happened in
// it, line by line. `--histories 1 --seed n` replays it. Time is CPU time, so that a busy machine changes nothing.

import { parseArgs } from 'node:util'
import { KINDS, type Options } from './state.ts'
import { simulate } from './world.ts'

const CPU_SECONDS_MAX = 60
const { values } = parseArgs({ options: { histories: { type: 'string' }, seed: { type: 'string' } } })
const histories = Number(values.histories ?? 10_000)
const first = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31))
if (!Number.isSafeInteger(histories) || histories < 1 || !Number.isSafeInteger(first) || first < 0) {
  process.stderr.write('usage: npm run simulation -- [--histories <count>] [--seed <first seed>]\n')
  process.exit(2)
}

process.stdout.write(`seeds ${first} to ${first + histories - 1}\n`)
const sum = { writes: 0, conflicts: 0, forgotten: 0, quarantined: 0 }
for (let seed = first; seed < first + histories; seed++) {
  // Chosen by the seed, so that the seed alone replays its history.
  const options = KINDS[seed % KINDS.length] ?? {}
  const outcome = simulate(seed, options)
  if (outcome.problems.length + outcome.misjudged.length > 0) {
    report(seed, options)
    process.exit(1)
  }
  sum.writes += outcome.writes
  sum.conflicts += outcome.conflicts
  sum.forgotten += outcome.forgotten
  sum.quarantined += outcome.quarantined
}
const cpuSeconds = process.cpuUsage().user / 1e6
process.stdout.write(
  `simulation: ${histories} passed, 0 failed, 0 skipped; ${sum.writes} writes, ${sum.conflicts} conflicts, ` +
    `${sum.forgotten} deaths forgotten, ${sum.quarantined} quarantined, ${cpuSeconds.toFixed(1)} s CPU\n`,
)
if (histories <= 10_000 && cpuSeconds > CPU_SECONDS_MAX) {
  process.stderr.write(`More than ${CPU_SECONDS_MAX} s of CPU for at most 10,000 histories.\n`)
  process.exit(1)
}

function fails(seed: number, options: Options): boolean {
  const { problems, misjudged } = simulate(seed, options)
  return problems.length + misjudged.length > 0
}

function report(seed: number, options: Options): void {
  let stepsMax = 0
  while (!fails(seed, { ...options, stepsMax })) stepsMax++
  const { trace, problems, misjudged } = simulate(seed, { ...options, stepsMax })
  process.stderr.write(`simulation: seed ${seed} fails after ${stepsMax} steps\n`)
  for (const line of [...trace, ...problems, ...misjudged]) process.stderr.write(`${line}\n`)
}
