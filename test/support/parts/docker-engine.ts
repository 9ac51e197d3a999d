// A private docker engine for a test: its data, socket and containerd are in a temporary directory, and it is stopped
// by its PID. Its changes to the machine's network are undone.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { command } from './command.ts'

const START_MS_MAX = 60_000
const STOP_MS_MAX = 20_000

export interface DockerEngine extends AsyncDisposable {
  /** DOCKER_HOST */
  readonly host: string
  readonly containerdSocket: string
  docker(...args: string[]): Promise<string>
  /** Imports a tiny image with the given files. Returns its reference. */
  importImage(reference: string, files: Readonly<Record<string, string | Buffer>>): Promise<void>
}

/** @param prefix a command that wraps the engine, for example to give it a separate mount namespace */
export async function startDockerEngine(prefix: readonly string[] = []): Promise<DockerEngine> {
  const directory = await mkdtemp(join(tmpdir(), 'portolan-docker-'))
  const socket = join(directory, 'docker.sock')
  const forwarding = await readFile('/proc/sys/net/ipv4/ip_forward', 'utf8')
  const [program = '', ...args] = [
    ...prefix,
    'dockerd',
    `--data-root=${directory}/root`,
    `--exec-root=${directory}/exec`,
    `--pidfile=${directory}/pid`,
    `--host=unix://${socket}`,
    '--bridge=none',
    '--iptables=false',
    '--ip6tables=false',
  ]
  const engine: ChildProcess = spawn(program, args, { detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [engine.stdout, engine.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-10_000)
    })
  }
  const host = `unix://${socket}`
  const env = { DOCKER_HOST: host, DOCKER_CONFIG: join(directory, 'config') }
  const docker = (...dockerArgs: string[]) => command('docker', dockerArgs, { env })
  const giveUpAtMs = performance.now() + START_MS_MAX
  for (;;) {
    const answered = await docker('version').then(
      () => true,
      () => false,
    )
    if (answered) break
    if (engine.exitCode !== null || performance.now() > giveUpAtMs) {
      engine.kill('SIGKILL')
      throw new Error(`the docker engine did not start:\n${output}`)
    }
    await pause(100)
  }
  return {
    host,
    containerdSocket: join(directory, 'exec', 'containerd', 'containerd.sock'),
    docker,
    async importImage(reference, files) {
      const root = join(directory, `image-${Date.now()}`)
      for (const [name, content] of Object.entries(files)) {
        await mkdir(join(root, name, '..'), { recursive: true })
        await writeFile(join(root, name), content)
      }
      await command('tar', ['-C', root, '-cf', `${root}.tar`, '.'])
      await docker('import', `${root}.tar`, reference)
      await rm(root, { recursive: true })
    },
    async [Symbol.asyncDispose]() {
      const exited = new Promise((done) => engine.once('exit', done))
      const pid = Number(await readFile(join(directory, 'pid'), 'utf8').catch(() => '0'))
      if (pid > 0) process.kill(pid, 'SIGTERM')
      else engine.kill('SIGTERM')
      await Promise.race([exited, pause(STOP_MS_MAX, undefined, { ref: false })])
      await writeFile('/proc/sys/net/ipv4/ip_forward', forwarding)
      await rm(directory, { recursive: true, force: true })
    },
  }
}
