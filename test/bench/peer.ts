// A server under measurement. It runs on core 0 and is stopped by its PID. CPU time and memory are read from /proc.
// Portolan's Postgres counts as part of the server, because its processes are children of the started process.

import { execFile, spawn } from 'node:child_process'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import bcrypt from 'bcrypt'
import { eventually } from '../support/eventually.ts'
import { findTool } from '../support/parts/tools.ts'
import { freePort } from '../support/portolan-process.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..', '..')
/** sysconf(_SC_CLK_TCK) on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100

export interface Peer extends AsyncDisposable {
  readonly name: string
  readonly url: string
  readonly port: number
  /** Headers for every request. */
  readonly headers: Readonly<Record<string, string>>
  readonly directory: string
  /** CPU seconds used by all processes of the server so far. */
  cpuSeconds(): Promise<number>
  /** Peak resident memory of the main process in MiB. Each call resets the peak. */
  peakMiB(): Promise<number>
}

interface Options {
  name: string
  command: string[]
  env: Record<string, string | undefined>
  port: number
  directory: string
  headers?: () => Promise<Record<string, string>>
}

async function start(options: Options): Promise<Peer> {
  const { name, port, directory } = options
  const child = spawn('taskset', ['-c', '0', ...options.command], {
    cwd: root,
    env: { PATH: process.env.PATH, HOME: directory, ...options.env },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const url = `http://127.0.0.1:${port}`
  await eventually(
    `${name} to answer`,
    () =>
      fetch(`${url}/v2/`).then(
        () => true,
        () => false,
      ),
    30_000,
  )
  const pid = child.pid ?? 0
  return {
    name,
    url,
    port,
    directory,
    headers: (await options.headers?.()) ?? {},
    async cpuSeconds() {
      const stats = await Promise.all(
        (await tree(pid)).map((one) => readFile(`/proc/${one}/stat`, 'utf8').catch(() => '')),
      )
      const ticks = stats.map((stat) => {
        const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
        // utime, stime, and the same for children that have exited.
        return [11, 12, 13, 14].reduce((sum, index) => sum + Number(fields[index] ?? 0), 0)
      })
      return ticks.reduce((sum, one) => sum + one, 0) / TICKS_PER_SECOND
    },
    async peakMiB() {
      const status = await readFile(`/proc/${pid}/status`, 'utf8')
      await writeFile(`/proc/${pid}/clear_refs`, '5')
      return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024
    },
    async [Symbol.asyncDispose]() {
      const exited = new Promise((done) => child.once('exit', done))
      child.kill('SIGTERM')
      await exited
    },
  }
}

/** Returns a process and all its descendants. */
async function tree(pid: number): Promise<number[]> {
  const parents = new Map<number, number[]>()
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const stat = await readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '')
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
    parents.set(parent, [...(parents.get(parent) ?? []), Number(entry)])
  }
  const found = [pid]
  for (let index = 0; index < found.length; index++) found.push(...(parents.get(found[index] ?? -1) ?? []))
  return found
}

/** Starts Portolan as a user runs it: accounts, a log line for each request, metrics. Clients use a token. */
export async function startPortolanPeer(
  directory: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Peer> {
  const port = await freePort()
  const htpasswd = join(directory, 'htpasswd')
  await writeFile(htpasswd, `bench:${await bcrypt.hash('bench', 5)}\n`)
  const scopes = ['bench/app', 'bench/tags', 'bench/push']
    .map((name) => `scope=repository:${name}:pull,push`)
    .join('&')
  return start({
    name: 'portolan',
    command: [process.execPath, '--import', './services/require-node.js', 'services/main.ts'],
    env: {
      PORTOLAN_LISTEN: `127.0.0.1:${port}`,
      PORTOLAN_METRICS_LISTEN: `127.0.0.1:${await freePort()}`,
      PORTOLAN_DATA_DIR: directory,
      PORTOLAN_AUTH: 'accounts',
      PORTOLAN_HTPASSWD_FILE: htpasswd,
      PORTOLAN_TOKEN_TTL_SECONDS: '3600',
      PORTOLAN_RATE_WINDOW_SECONDS: '600',
      ...env,
    },
    port,
    directory,
    headers: async () => {
      const answer = await fetch(`http://127.0.0.1:${port}/token?${scopes}&scope=registry:catalog:*`, {
        headers: { Authorization: `Basic ${btoa('bench:bench')}` },
      })
      return { Authorization: `Bearer ${((await answer.json()) as { token: string }).token}` }
    },
  })
}

/**
 * Starts CNCF distribution v3 in its fastest configuration: no authentication and no request log. It uses the file
 * driver unless another is given.
 */
export async function startDistributionPeer(
  directory: string,
  driver = `filesystem: { rootdirectory: ${directory}/store }`,
): Promise<Peer | undefined> {
  const registry = findTool('registry')
  if (registry === undefined) return undefined
  const port = await freePort()
  const config = join(directory, 'config.yml')
  await writeFile(
    config,
    `version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage:
  ${driver}
  cache: { blobdescriptor: inmemory }
  delete: { enabled: true }
http: { addr: 127.0.0.1:${port} }
`,
  )
  return start({
    name: 'distribution v3.1.2',
    command: [registry, 'serve', config],
    env: { OTEL_TRACES_EXPORTER: 'none' },
    port,
    directory,
  })
}

export async function hasPrograms(...names: string[]): Promise<boolean> {
  const found = await Promise.all(
    names.map((name) =>
      run('which', [name]).then(
        () => true,
        () => false,
      ),
    ),
  )
  return found.every(Boolean)
}
