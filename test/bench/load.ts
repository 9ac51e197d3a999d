// Generates load on core 1: wrk for GET, ab for HEAD (wrk waits for a body), and a Node process for pushes. Each
// function returns the number of completed operations. Any response other than success is an error, because a fast 404
// is not a valid result.

import { execFile, spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Peer } from './peer.ts'

const run = promisify(execFile)
const ACCEPT = 'application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json'

export interface LoadOptions {
  seconds: number
  connections: number
}

function headerArguments(peer: Peer): string[] {
  return Object.entries({ Accept: ACCEPT, ...peer.headers }).flatMap(([name, value]) => [
    '-H',
    `${name}: ${value}`,
  ])
}

/** Sends GETs of one path, or of random paths with a number appended. Returns completed requests and bytes. */
export async function get(
  peer: Peer,
  path: string,
  options: LoadOptions & { distinct?: number; directory: string },
): Promise<{ operations: number; bytes: number }> {
  const script = join(options.directory, 'wrk.lua')
  const request = options.distinct
    ? `request = function() return wrk.format('GET', '${path}' .. math.random(0, ${options.distinct - 1})) end\n`
    : ''
  await writeFile(
    script,
    `${request}done = function(summary) io.write(string.format('RESULT %d %d %d\\n', summary.requests, summary.bytes, summary.errors.status + summary.errors.read + summary.errors.connect + summary.errors.timeout)) end\n`,
  )
  const { stdout } = await run('taskset', [
    '-c',
    '1',
    'wrk',
    '-t1',
    `-c${options.connections}`,
    `-d${options.seconds}s`,
    '--timeout',
    '30s',
    '-s',
    script,
    ...headerArguments(peer),
    `${peer.url}${options.distinct ? '/' : path}`,
  ])
  const match = /RESULT (\d+) (\d+) (\d+)/.exec(stdout)
  if (match === null || Number(match[3]) > 0) throw new Error(`${peer.name} ${path}: ${stdout}`)
  return { operations: Number(match[1]), bytes: Number(match[2]) }
}

export async function head(peer: Peer, path: string, options: LoadOptions): Promise<{ operations: number }> {
  const { stdout } = await run('taskset', [
    '-c',
    '1',
    'ab',
    '-i',
    '-k',
    '-q',
    '-n',
    '10000000',
    '-t',
    String(options.seconds),
    '-c',
    String(options.connections),
    ...headerArguments(peer),
    `${peer.url}${path}`,
  ])
  const operations = Number(/Complete requests:\s+(\d+)/.exec(stdout)?.[1])
  if (/Non-2xx responses/.test(stdout) || !(operations > 0))
    throw new Error(`${peer.name} HEAD ${path}: ${stdout}`)
  return { operations }
}

export interface PushOptions {
  repository: string
  bytes: number
  clients: number
  seconds: number
  /** Total pushes per second. If undefined, as fast as possible. */
  rate?: number
  /** Send the bytes by PATCH with an empty PUT, like docker (the default), or in the PUT, like other clients. */
  way?: 'patch' | 'put'
  /** Push a manifest under this tag instead of a blob. */
  tag?: string
}

/** Pushes distinct blobs by POST, PATCH and PUT, or moves a tag repeatedly. Runs in a separate process on core 1. */
export function push(
  peer: Pick<Peer, 'name' | 'url' | 'headers'>,
  options: PushOptions,
): Promise<{ operations: number }> {
  const child = spawn(
    'taskset',
    [
      '-c',
      '1',
      process.execPath,
      join(import.meta.dirname, 'pusher.ts'),
      JSON.stringify({ url: peer.url, headers: peer.headers, ...options }),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk
  })
  return new Promise((resolve, reject) => {
    child.on('exit', (code) => {
      if (code === 0) resolve({ operations: Number(output) })
      else reject(new Error(`pushing to ${peer.name} failed`))
    })
  })
}
