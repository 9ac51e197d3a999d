// The program as a supervisor runs it: `npm start`. The supervisor knows only the npm process.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { eventually } from '../support/eventually.ts'
import { freePort } from '../support/portolan-process.ts'
import { testDirectory } from '../support/region.ts'

const root = join(import.meta.dirname, '..', '..')
const START_MS_MAX = 100_000
/** The time of a drain without requests on a busy machine. */
const END_MS_MAX = 60_000

interface Started {
  readonly npm: ChildProcess
  readonly dataDir: string
  readonly url: string
  output(): string
  /** All processes of the tree while it was serving. */
  readonly pids: readonly number[]
}

/** Runs `npm start` until it serves, in a separate process group like a supervisor's child. */
async function npmStart(t: TestContext, dataDir: string): Promise<Started> {
  const port = await freePort()
  const environment = Object.entries(process.env).filter(
    ([name]) => !/^(PORTOLAN_|npm_|NODE_OPTIONS)/.test(name),
  )
  const npm = spawn('npm', ['start'], {
    cwd: root,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...Object.fromEntries(environment),
      PORTOLAN_LISTEN: `localhost:${port}`,
      PORTOLAN_METRICS_LISTEN: 'off',
      PORTOLAN_DATA_DIR: dataDir,
      PORTOLAN_DRAIN_SECONDS: '5',
    },
  })
  let output = ''
  for (const stream of [npm.stdout, npm.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString()
    })
  const pids: number[] = []
  t.after(() => {
    for (const pid of pids.filter(isAlive)) process.kill(pid, 'SIGKILL')
  })
  pids.push(npm.pid ?? 0)
  await eventually(
    'the server to start',
    () => {
      assert.equal(npm.exitCode, null, output)
      return output.includes('Ctrl-C')
    },
    START_MS_MAX,
  )
  for (const pid of treeOf(npm.pid ?? 0)) if (!pids.includes(pid)) pids.push(pid)
  assert.ok(pids.some((pid) => commandOf(pid).includes('services/main.ts')))
  assert.ok(pids.some((pid) => /postgres/.test(commandOf(pid))))
  return { npm, dataDir, url: `http://localhost:${port}`, output: () => output, pids }
}

function treeOf(root: number): number[] {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc')) {
    const parent = /\) \w (\d+)/.exec(statOf(Number(name)))?.[1]
    if (parent !== undefined) parents.set(Number(name), Number(parent))
  }
  const tree = [root]
  for (const pid of tree) for (const [child, parent] of parents) if (parent === pid) tree.push(child)
  return tree
}

function statOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return ''
  }
}

function commandOf(pid: number): string {
  return spawnSync('cat', [`/proc/${pid}/cmdline`], { encoding: 'utf8' }).stdout.replaceAll('\0', ' ')
}

function isAlive(pid: number): boolean {
  return /\) [^ZX] /.test(statOf(pid))
}

function allGone({ pids }: Started): Promise<true> {
  return eventually('all its processes to be gone', () => pids.every((pid) => !isAlive(pid)), END_MS_MAX)
}

const skip = process.platform !== 'linux' && 'reads /proc'

describe('npm start', { skip }, () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    test(`${signal} to npm drains the server and stops its Postgres, and npm exits last`, async (t) => {
      const started = await npmStart(t, await testDirectory(t))
      const ended = once(started.npm, 'exit')
      started.npm.kill(signal)
      await ended
      assert.deepEqual(
        started.pids.filter(isAlive),
        [],
        'npm exits last, so a supervisor can start the next one',
      )
      const log = readFileSync(join(started.dataDir, 'eu', 'postgres', 'data', 'global', 'pg_control'))
      // https://doxygen.postgresql.org/pg__control_8h.html: DBState, 1 is DB_SHUTDOWNED.
      assert.equal(log.readUInt32LE(16), 1, 'Postgres was shut down, not killed')
    })
  }

  test('Ctrl-C in a terminal, which arrives as two signals, drains too', async (t) => {
    const started = await npmStart(t, await testDirectory(t))
    const ended = once(started.npm, 'exit')
    process.kill(-(started.npm.pid ?? 0), 'SIGINT')
    const [code] = await ended
    assert.notEqual(code, 130, 'the duplicate signal does not skip the drain')
    await allGone(started)
  })

  test('killing npm ends all its processes, and the next start serves', async (t) => {
    const dataDir = await testDirectory(t)
    const started = await npmStart(t, dataDir)
    started.npm.kill('SIGKILL')
    await allGone(started)
    const again = await npmStart(t, dataDir)
    again.npm.kill('SIGTERM')
    await allGone(again)
  })
})
