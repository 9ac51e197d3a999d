// Compares Portolan with CNCF distribution v3.1.2 on this machine in one run: servers on core 0 (including Portolan's
// Postgres), clients on core 1, interleaved rounds, medians. The bench prints operations per second of server CPU time
// and their ratio. Raw rates vary with the load of the machine; these values hardly do.
//
//   npm run bench [-- SECONDS_PER_ROUND [ROUNDS]]

import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { eventually } from '../support/eventually.ts'
import { INDEX, manifestOf, sha256, testImage } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'
import { get, head, push } from './load.ts'
import { hasPrograms, type Peer, startDistributionPeer, startPortolanPeer } from './peer.ts'

const [seconds = 3, rounds = 3] = process.argv.slice(2).map(Number)
const TAGS = 100_000
const MIB = 1024 * 1024

interface Workload {
  readonly name: string
  /** The target ratio. If undefined, the result is only printed. */
  readonly wanted?: number
  readonly unit: 'operations' | 'GB'
  load(peer: Peer): Promise<{ operations: number; bytes?: number }>
}

if (!(await hasPrograms('wrk', 'ab', 'taskset'))) {
  process.stdout.write('SKIP bench: this machine has no wrk, ab or taskset\n')
  process.exit(0)
}
const directory = await mkdtemp(join(tmpdir(), 'portolan-bench-'))
await using running = new AsyncDisposableStack()
running.defer(() => rm(directory, { recursive: true, force: true }))
for (const name of ['ours', 'theirs']) await mkdir(join(directory, name))
const ours = running.use(await startPortolanPeer(join(directory, 'ours')))
const theirs = await startDistributionPeer(join(directory, 'theirs'))
if (theirs === undefined) {
  process.stdout.write('SKIP bench: distribution is not built (node test/support/parts/tools.ts registry)\n')
  process.exit(0)
}
running.use(theirs)
const peers = [ours, theirs]

const image = testImage({}, randomBytes(1024))
const [medium, mebibyte, large] = [randomBytes(100 * 1024), randomBytes(MIB), randomBytes(100 * MIB)]
for (const peer of peers) await seed(peer)
await seedOurLists(ours)
await seedTheirTags(theirs)

const small = sha256(image.blobs[1] ?? '')
const connections = 32
const of = (extra: { connections?: number } = {}) => ({ seconds, connections, directory, ...extra })
const workloads: Workload[] = [
  {
    name: 'manifest GET by tag',
    wanted: 8,
    unit: 'operations',
    load: (peer) => get(peer, '/v2/bench/app/manifests/v1', of()),
  },
  {
    name: 'manifest GET by digest',
    wanted: 8,
    unit: 'operations',
    load: (peer) => get(peer, `/v2/bench/app/manifests/${image.digest}`, of()),
  },
  {
    name: 'manifest HEAD by tag',
    wanted: 8,
    unit: 'operations',
    load: (peer) => head(peer, '/v2/bench/app/manifests/v1', of()),
  },
  {
    name: 'manifest HEAD by digest',
    wanted: 8,
    unit: 'operations',
    load: (peer) => head(peer, `/v2/bench/app/manifests/${image.digest}`, of()),
  },
  {
    name: '100,000 distinct tags',
    wanted: 4,
    unit: 'operations',
    load: (peer) => get(peer, '/v2/bench/tags/manifests/t', { ...of(), distinct: TAGS }),
  },
  {
    name: 'beside 50 pushes/s',
    wanted: 4,
    unit: 'operations',
    load: async (peer) => {
      const pushing = push(peer, {
        repository: 'bench/push',
        bytes: 16,
        clients: 4,
        seconds,
        rate: 50,
        tag: 'moving',
      })
      const { operations } = await get(peer, '/v2/bench/app/manifests/v1', of())
      await pushing
      return { operations }
    },
  },
  {
    name: 'blob HEAD',
    wanted: 3,
    unit: 'operations',
    load: (peer) => head(peer, `/v2/bench/app/blobs/${small}`, of()),
  },
  {
    name: 'blob GET 1 KB',
    wanted: 30,
    unit: 'operations',
    load: (peer) => get(peer, `/v2/bench/app/blobs/${small}`, of()),
  },
  {
    name: 'blob GET 100 KB',
    unit: 'operations',
    load: (peer) => get(peer, `/v2/bench/app/blobs/${sha256(medium)}`, of()),
  },
  {
    name: 'blob GET 1 MB',
    unit: 'GB',
    load: (peer) => get(peer, `/v2/bench/app/blobs/${sha256(mebibyte)}`, of()),
  },
  {
    name: 'blob GET 100 MB',
    wanted: 1.2,
    unit: 'GB',
    load: (peer) => get(peer, `/v2/bench/app/blobs/${sha256(large)}`, of({ connections: 4 })),
  },
  {
    name: 'push 4 KB, 8 clients',
    wanted: 4,
    unit: 'operations',
    load: (peer) => push(peer, { repository: 'bench/push', bytes: 4096, clients: 8, seconds }),
  },
  {
    name: 'push 4 KB, no PATCH',
    unit: 'operations',
    load: (peer) => push(peer, { repository: 'bench/push', bytes: 4096, clients: 8, seconds, way: 'put' }),
  },
  {
    name: 'push 1 MB, 8 clients',
    unit: 'operations',
    load: (peer) => push(peer, { repository: 'bench/push', bytes: MIB, clients: 8, seconds }),
  },
  {
    name: 'push 100 MB, 2 clients',
    wanted: 1,
    unit: 'GB',
    load: async (peer) => {
      const { operations } = await push(peer, {
        repository: 'bench/push',
        bytes: 100 * MIB,
        clients: 2,
        seconds: Math.max(seconds, 4),
      })
      return { operations, bytes: operations * 100 * MIB }
    },
  },
]

// Measure this first, before other work increases memory use.
for (const peer of peers) {
  await peer.peakMiB()
  const idle = await peer.peakMiB()
  const sockets = await stalledReaders(peer, 300)
  const peak = await peer.peakMiB()
  for (const socket of sockets) socket.destroy()
  const verdict = peer === ours ? `   ${peak < 200 ? 'reached' : 'MISSED '} < 200 MiB` : ''
  process.stdout.write(
    `${`300 stalled readers, ${peer.name}`.padEnd(38)}${Math.round(peak)} MiB ` +
      `(before: ${Math.round(idle)})${verdict}\n`,
  )
}

process.stdout.write(
  `${'per server core-second'.padEnd(26)}${ours.name.padStart(12)}${theirs.name.padStart(22)}` +
    '  ratio (spread)     wanted\n',
)
for (const { name, wanted, unit, load } of workloads) {
  const results = peers.map(() => [] as number[])
  for (let round = 0; round < rounds; round++) {
    for (const [index, peer] of peers.entries()) results[index]?.push(await measure(peer, load, unit))
  }
  const [mine = [], other = []] = results
  const ratios = mine.map((value, round) => value / (other[round] ?? Number.NaN)).sort((a, b) => a - b)
  const show = (values: number[]) =>
    unit === 'GB' ? `${median(values).toFixed(2)} GB` : Math.round(median(values)).toLocaleString('en')
  const ratio = median(mine) / median(other)
  const verdict = wanted === undefined ? '' : `${ratio >= wanted ? 'reached' : 'MISSED '} ${wanted}x`
  const spread = `${ratio.toFixed(1)}x (${ratios[0]?.toFixed(1)}-${ratios.at(-1)?.toFixed(1)})`
  process.stdout.write(
    `${name.padEnd(26)}${show(mine).padStart(12)}${show(other).padStart(22)}  ${spread.padEnd(18)} ${verdict}\n`,
  )
}

for (const [what, path] of [
  ['tag page, first', '/v2/bench/tags/tags/list?n=100'],
  ['tag page, deep', '/v2/bench/tags/tags/list?n=100&last=t90000'],
  ['catalog page, first', '/v2/_catalog?n=100'],
  ['catalog page, deep', '/v2/_catalog?n=100&last=many/r90000'],
] as const) {
  const perSecond = await measure(ours, (peer) => get(peer, path, of({ connections: 4 })), 'operations')
  const milliseconds = 1_000 / perSecond
  process.stdout.write(
    `${`${what} of ${TAGS.toLocaleString('en')}`.padEnd(38)}${milliseconds.toFixed(2)} ms of server time   ` +
      `${milliseconds < 2 ? 'reached' : 'MISSED '} < 2 ms\n`,
  )
}

async function measure(peer: Peer, load: Workload['load'], unit: Workload['unit']): Promise<number> {
  const before = await peer.cpuSeconds()
  const { operations, bytes } = await load(peer)
  const spent = (await peer.cpuSeconds()) - before
  return (unit === 'GB' ? (bytes ?? 0) / 1e9 : operations) / spent
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

async function seed(peer: Peer): Promise<void> {
  const client = ociClient(peer.url, peer.headers.Authorization)
  await client.pushImage('bench/app', image, 'v1')
  for (const blob of [medium, mebibyte, large]) await client.pushBlob('bench/app', blob)
  const manifest = manifestOf(INDEX, { manifests: [] })
  await client.pushManifest('bench/tags', 't0', manifest)
  await client.pushManifest('bench/push', 'moving', manifest)
}

/** Inserts rows in bulk as pushes write them: tags of one repository, and repositories. */
async function seedOurLists(peer: Peer): Promise<void> {
  const { readFile } = await import('node:fs/promises')
  const postgres = join(peer.directory, 'eu', 'postgres')
  const password = (await readFile(join(postgres, 'password'), 'utf8')).trim()
  const client = new pg.Client({
    host: join(postgres, 'socket'),
    user: 'portolan',
    password,
    database: 'postgres',
  })
  await client.connect()
  await client.query(
    `insert into tag (repository_id, name, digest, h, origin, alive, actor, at)
     select repository_id, 't' || n, digest, h, origin, alive, actor, at from tag cross join generate_series(1, ${TAGS - 1}) as n
     where name = 't0'`,
  )
  await client.query(
    `insert into repository (name, shard, alive_h, alive_origin) select 'many/r' || n, 0, hlc_now(), 'eu' from generate_series(1, ${TAGS}) as n`,
  )
  await client.query('vacuum analyze tag')
  await client.query('vacuum analyze repository')
  await client.end()
}

/** Writes tag links in the layout of distribution. */
async function seedTheirTags(peer: Peer): Promise<void> {
  const tags = join(peer.directory, 'store/docker/registry/v2/repositories/bench/tags/_manifests/tags')
  const { digest } = manifestOf(INDEX, { manifests: [] })
  for (let from = 1; from < TAGS; from += 500) {
    await Promise.all(
      Array.from({ length: Math.min(500, TAGS - from) }, async (_, index) => {
        const current = join(tags, `t${from + index}`, 'current')
        await mkdir(current, { recursive: true })
        await writeFile(join(current, 'link'), digest)
      }),
    )
  }
}

/** Opens clients that request 100 MB and read nothing. */
async function stalledReaders(peer: Peer, count: number) {
  const sockets = Array.from({ length: count }, () => {
    const socket = connect(peer.port, '127.0.0.1')
    socket.on('error', () => {})
    const headers = Object.entries(peer.headers).map(([name, value]) => `${name}: ${value}\r\n`)
    socket.write(`GET /v2/bench/app/blobs/${sha256(large)} HTTP/1.1\r\nHost: h\r\n${headers.join('')}\r\n`)
    let seen = false
    socket.once('data', () => {
      seen = true
      socket.pause()
    })
    return Object.assign(socket, { seen: () => seen })
  })
  await eventually(
    'every reader to receive its first bytes',
    () => sockets.every((socket) => socket.seen()),
    60_000,
  )
  return sockets
}
