// An embedded Postgres: a real server under the data directory that this process starts, supervises and stops.
//
// It listens only on a unix socket (on Windows: on loopback) and requires a random password, stored next to its data.
// It runs in its own session, so that a terminal's Ctrl-C reaches this process and not Postgres. It ends with this
// process, even on kill -9 (Linux: parent-death signal; elsewhere the next start stops the orphan). If it ends by
// itself, it is restarted. After several failed starts, `failed` resolves with the end of its log. A data directory has
// one owner: a second process fails with an OperatorError, and so does a data directory of another major version.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, mkdtemp, rm, statfs } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { OperatorError } from '#shared/errors.ts'
import { postgresBinaries } from './binaries.ts'
import { initializeCluster } from './cluster.ts'
import { lockDirectory } from './directory-lock.ts'
import { makeDurableDirectory } from './durable-directory.ts'
import { type Launcher, postgresLauncher } from './owner.ts'
import { clearServer, type Postmaster, readPostmaster, STOP_SIGNALS, STOP_TIMEOUT_MS } from './postmaster.ts'
import { createServerLock } from './server-lock.ts'
import { createServerLog } from './server-log.ts'

/** Created by initdb. The server holds nothing else, so Portolan uses this database. */
const DATABASE = 'postgres'
/** A unix socket path has at most 107 bytes, and Postgres appends `/.s.PGSQL.5432`. */
const SOCKET_DIRECTORY_LENGTH_MAX = 90
const START_TIMEOUT_MS = 30_000
const READY_POLL_MS = 4
/** Where orphaned backends that still hold the shared memory cannot be detected, the first starts may fail briefly. */
const FAILED_STARTS_MAX = 30
const RESTART_DELAY_MS = 100
const FULL_DISK_DELAY_MS = 1_000
/** A starting server needs space for one WAL segment. */
const START_BYTES_MIN = 16 * 1024 * 1024

const SETTINGS: Readonly<Record<string, string>> = Object.freeze({
  max_connections: '200',
  shared_buffers: '64MB',
  max_prepared_transactions: '20',
  jit: 'off',
  log_min_messages: 'warning',
  log_timezone: 'UTC',
  timezone: 'UTC',
  // Crash recovery stays short, and a checkpoint does not stall pushes.
  max_wal_size: '512MB',
  wal_compression: 'on',
})

export interface EmbeddedPostgres extends AsyncDisposable {
  /** For the pg library. Contains the password. */
  readonly url: string
  /** Returns the server's current process id. */
  pid(): number | undefined
  /** Resolves when the server has failed for good. Never rejects. */
  readonly failed: Promise<Error>
}

export interface EmbeddedPostgresOptions {
  /** Created if missing. Holds `data`, `password`, `log`. */
  directory: string
  /** Server settings that override the defaults here. Tests turn fsync off. */
  settings?: Readonly<Record<string, string>>
  onRestart?: (reason: string) => void
}

export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const directory = resolve(options.directory)
  const binaries = await postgresBinaries()
  await makeDurableDirectory(directory, { mode: 0o711 })
  await using held = new AsyncDisposableStack()
  held.defer(await lockDirectory(directory))
  const data = join(directory, 'data')
  const serverLock = await createServerLock(join(directory, 'server-lock'))
  const launcher = await postgresLauncher({ reached: [binaries.postgres, data], serverLock })
  const clear = () => clearServer({ data, socketDirectory: join(directory, 'socket'), serverLock })
  // Also stops an initdb that was left behind. What it created is removed next.
  await clear()
  const password = await initializeCluster({ directory, data, initdb: binaries.initdb, launcher })
  const address = await addressFor(directory, launcher)
  held.defer(address.remove)
  const log = createServerLog(join(directory, 'log'))
  held.defer(log.close)
  const settings = { ...SETTINGS, ...options.settings, ...address.settings }
  const command = launcher.wrap(binaries.postgres, [
    '-D',
    data,
    ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
  ])

  let child: ChildProcess | undefined
  let stopping = false
  const { promise: failed, resolve: giveUp } = Promise.withResolvers<Error>()

  async function start(): Promise<void> {
    const started = spawn(command.command, command.args, {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: directory,
    })
    child = started
    log.take(started.stdout)
    log.take(started.stderr)
    const exited = new Promise<string>((done) => {
      started.on('error', (error) => done(error.message))
      started.on('exit', (code, signal) => done(`ended with ${signal ?? code}`))
    })
    const outcome = await Promise.race([waitUntilReady(data), exited])
    if (outcome !== 'ready')
      throw new OperatorError(`The embedded Postgres did not start (${outcome}): ${log.tail()}`)
    void exited.then(restart)
  }

  async function restart(reason: string): Promise<void> {
    if (stopping) return
    options.onRestart?.(reason)
    for (let failures = 1; !stopping; failures++) {
      try {
        await pause(RESTART_DELAY_MS)
        await clear()
        if (stopping) return
        await start()
        return
      } catch (thrown) {
        if (failures < FAILED_STARTS_MAX) continue
        // A full disk is temporary. Pushes and pulls are answered 503 until there is space.
        if (await hasNoSpace(directory)) {
          await pause(FULL_DISK_DELAY_MS)
          continue
        }
        giveUp(thrown as Error)
        return
      }
    }
  }

  await start()

  const release = held.move()
  return {
    url: `postgres://portolan:${password}@${address.host}/${DATABASE}`,
    failed,
    pid: () => child?.pid,
    async [Symbol.asyncDispose]() {
      if (stopping) return
      stopping = true
      if (child !== undefined) await stop(child)
      await release.disposeAsync()
    },
  }
}

async function hasNoSpace(directory: string): Promise<boolean> {
  const { bavail, bsize } = await statfs(directory)
  return bavail * bsize < START_BYTES_MIN
}

interface Address {
  readonly settings: Readonly<Record<string, string>>
  /** The part of the URL after the password: an escaped socket directory, or host and port. */
  readonly host: string
  remove(): Promise<void>
}

async function addressFor(directory: string, launcher: Launcher): Promise<Address> {
  if (process.platform === 'win32') {
    const port = await freePort()
    return {
      settings: { listen_addresses: '127.0.0.1', port: String(port), unix_socket_directories: '' },
      host: `127.0.0.1:${port}`,
      remove: async () => {},
    }
  }
  const inside = join(directory, 'socket')
  const fits = Buffer.byteLength(inside) <= SOCKET_DIRECTORY_LENGTH_MAX
  const path = fits ? inside : await mkdtemp(join(tmpdir(), 'portolan-'))
  await mkdir(path, { recursive: true, mode: 0o700 })
  await launcher.own(path)
  return {
    settings: { listen_addresses: '', unix_socket_directories: path },
    host: encodeURIComponent(path),
    remove: async () => {
      if (!fits) await rm(path, { recursive: true, force: true })
    },
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  const { promise, resolve: bound } = Promise.withResolvers<number>()
  server.listen(0, '127.0.0.1', () => bound((server.address() as { port: number }).port))
  const port = await promise
  await new Promise((closed) => server.close(closed))
  return port
}

/** Postgres writes `ready` into the last line of its pid file when it accepts connections. */
async function waitUntilReady(data: string): Promise<'ready' | 'took too long to become ready'> {
  const giveUpAtMs = performance.now() + START_TIMEOUT_MS
  while (performance.now() < giveUpAtMs) {
    const postmaster: Postmaster | undefined = await readPostmaster(data)
    if (postmaster?.status === 'ready') return 'ready'
    await pause(READY_POLL_MS)
  }
  return 'took too long to become ready'
}

async function stop(child: ChildProcess): Promise<void> {
  const exited = new Promise<true>((done) => {
    if (child.exitCode !== null || child.signalCode !== null) done(true)
    else child.on('exit', () => done(true))
  })
  for (const signal of STOP_SIGNALS) {
    child.kill(signal)
    const timeout = new AbortController()
    const ended = await Promise.race([
      exited,
      pause(STOP_TIMEOUT_MS, false, { signal: timeout.signal }).catch(() => false),
    ])
    timeout.abort()
    if (ended) return
  }
}
