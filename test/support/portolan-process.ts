// Portolan as users run it: a process started by its script, accessed only over HTTP, and stopped by its PID.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

const root = join(import.meta.dirname, '..', '..')
/** Only a process that never starts waits this long. It allows for a busy machine. */
const START_MS_MAX = 100_000
const STOP_MS_MAX = 100_000

export interface PortolanProcess extends AsyncDisposable {
  /** host:port, as in an image reference. */
  readonly host: string
  readonly url: string
  readonly pid: number
  readonly dataDir: string
  /** The output so far. */
  output(): string
  stop(signal?: NodeJS.Signals): Promise<number | null>
}

export interface PortolanOptions {
  services?: readonly string[]
  env?: Readonly<Record<string, string>>
  /** A directory that the caller keeps. Default: a temporary directory that is removed with the process. */
  dataDir?: string
  port?: number
}

export async function startPortolan(options: PortolanOptions = {}): Promise<PortolanProcess> {
  const port = options.port ?? (await freePort())
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'portolan-run-')))
  const child = spawn(
    process.execPath,
    ['--import', './services/require-node.js', 'services/main.ts', ...(options.services ?? [])],
    {
      cwd: root,
      env: {
        ...environment(),
        PORTOLAN_LISTEN: `localhost:${port}`,
        PORTOLAN_METRICS_LISTEN: 'off',
        PORTOLAN_DATA_DIR: dataDir,
        PORTOLAN_LOG_LEVEL: 'warn',
        ...options.env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-100_000)
  })
  child.stderr.on('data', (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-100_000)
  })
  const exited = new Promise<number | null>((done) => child.on('exit', (code) => done(code)))
  const host = `localhost:${port}`
  await ready(child, host, () => output)
  const stop = async (signal: NodeJS.Signals = 'SIGTERM') => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal)
    const late = pause(STOP_MS_MAX, 'late' as const, { ref: false })
    const outcome = await Promise.race([exited, late])
    if (outcome === 'late') {
      child.kill('SIGKILL')
      throw new Error(`Portolan did not stop within ${STOP_MS_MAX} ms:\n${output}`)
    }
    return outcome
  }
  return {
    host,
    url: `http://${host}`,
    pid: child.pid ?? 0,
    dataDir,
    output: () => output,
    stop,
    async [Symbol.asyncDispose]() {
      await stop()
      if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true })
    },
  }
}

export interface CommandResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs `main.ts` with arguments until it exits. `onStart` receives the process. */
export function runCommand(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  onStart: (child: ChildProcess) => void = () => {},
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      ['--import', './services/require-node.js', 'services/main.ts', ...args],
      { cwd: root, env: { ...environment(), ...env }, timeout: START_MS_MAX },
      (error, stdout, stderr) =>
        resolve({
          code: error === null ? 0 : typeof error.code === 'number' ? error.code : 1,
          stdout,
          stderr,
        }),
    )
    onStart(child)
  })
}

/** The environment of this process without any variable that configures Portolan. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('PORTOLAN_')))
}

async function ready(child: ChildProcess, host: string, output: () => string): Promise<void> {
  const giveUpAtMs = performance.now() + START_MS_MAX
  while (performance.now() < giveUpAtMs) {
    if (child.exitCode !== null) break
    try {
      const { status } = await fetch(`http://${host}/readyz`)
      // The greeting is printed last, so everything it names is already listening.
      if (status === 200 && output().includes('Ctrl-C')) return
    } catch {
      // Not listening yet.
    }
    await pause(20)
  }
  child.kill('SIGKILL')
  throw new Error(`Portolan did not start:\n${output()}`)
}

export async function freePort(): Promise<number> {
  const server = createServer()
  const { promise, resolve } = Promise.withResolvers<number>()
  server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port))
  const port = await promise
  await new Promise((closed) => server.close(closed))
  return port
}
