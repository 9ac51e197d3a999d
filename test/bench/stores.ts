// Speed and cost on an object store, compared with CNCF distribution v3 on the same MinIO in one run. Servers run on
// core 0, MinIO and the clients on core 1; the CPU time of MinIO is not counted. Also counts the requests of each push
// and pull to the store through a proxy, and measures the memory of fifty paused large uploads.
//
//   npm run bench:stores -- [seconds] [rounds]

import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { createS3Signer } from '#shared/blobs/objects/s3-presign.ts'
import { sha256 } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'
import { startObjectStore, withoutStore } from '../support/parts/object-stores.ts'
import { startStoreProxy } from '../support/store-proxy.ts'
import { get, push } from './load.ts'
import { hasPrograms, type Peer, startDistributionPeer, startPortolanPeer } from './peer.ts'

const [seconds = 3, rounds = 3] = process.argv.slice(2).map(Number)
const MIB = 1024 * 1024
const say = (text: string) => process.stdout.write(`${text}\n`)

const lacking =
  withoutStore('minio') || (!(await hasPrograms('wrk', 'taskset')) && 'this machine has no wrk or taskset')
if (lacking) {
  say(`SKIP bench on object stores: ${lacking}`)
  process.exit(0)
}
const directory = await mkdtemp(join(tmpdir(), 'portolan-bench-stores-'))
await using running = new AsyncDisposableStack()
running.defer(() => rm(directory, { recursive: true, force: true }))
for (const name of ['ours', 'theirs', 'counted', 'counted-theirs']) await mkdir(join(directory, name))
const minio = running.use(await startObjectStore('minio'))
execFileSync('taskset', ['-a', '-p', '-c', '1', String(minio.pid)])
const driver = (url: string, root: string) =>
  `s3: { region: us-east-1, bucket: images, regionendpoint: "${url}", forcepathstyle: true, secure: false, accesskey: ${minio.env.AWS_ACCESS_KEY_ID}, secretkey: ${minio.env.AWS_SECRET_ACCESS_KEY}, rootdirectory: /${root} }\n  redirect: { disable: true }`
const ours = running.use(await startPortolanPeer(join(directory, 'ours'), minio.env))
const theirs = await startDistributionPeer(join(directory, 'theirs'), driver(minio.url, 'theirs'))
if (theirs === undefined) {
  say('SKIP bench on object stores: distribution is not built (node test/support/parts/tools.ts registry)')
  process.exit(0)
}
running.use(theirs)
const peers = [ours, theirs]

// Measure this first, before other work increases memory use.
await ours.peakMiB()
const before = await ours.peakMiB()
const sockets = await pausedUploads(ours, 50, 40_000_000)
await pause(1_000)
const peak = await ours.peakMiB()
for (const socket of sockets) socket.destroy()
say(
  `50 uploads paused after 40 MB: ${Math.round(peak)} MiB (before: ${Math.round(before)})   ` +
    `${peak < 512 ? 'reached' : 'MISSED '} < 512 MiB`,
)
say('time from the last byte of a streamed upload to its 201')
for (const size of [64, 256, 1024]) {
  const times = []
  for (const peer of peers) times.push(`${peer.name} ${Math.round(await lastByteTo201(peer, size * MIB))} ms`)
  say(`${`${size} MiB`.padEnd(12)}${times.join('   ')}`)
}

const blobs = {
  '1 KB': randomBytes(1024),
  '1 MB': randomBytes(1_000_000),
  '100 MB': randomBytes(100_000_000),
}
for (const peer of peers) {
  const client = ociClient(peer.url, peer.headers.Authorization)
  for (const blob of Object.values(blobs)) await client.pushBlob('bench/app', blob)
}
say(`${'per server core-second'.padEnd(26)}${ours.name.padStart(12)}${theirs.name.padStart(22)}  ratio`)
await compare('push 4 KB, 8 clients', (peer) =>
  push(peer, { repository: 'bench/push', bytes: 4096, clients: 8, seconds }),
)
for (const [name, blob] of Object.entries(blobs)) {
  await compare(`blob GET ${name}`, (peer) =>
    get(peer, `/v2/bench/app/blobs/${sha256(blob)}`, {
      seconds,
      connections: name === '100 MB' ? 2 : 16,
      directory,
    }),
  )
}

await countRequests()

const signer = createS3Signer({
  bucket: 'images',
  pathStyle: true,
  endpoint: minio.url,
  region: async () => 'us-east-1',
  credentials: async () => ({ accessKeyId: 'a', secretAccessKey: 'b' }),
})
const LINKS = 20_000
for (let link = 0; link < LINKS; link++)
  await signer(`eu/${link}`, { nowMs: 1_800_000_000_000, seconds: 1500 })
const startMs = performance.now()
for (let link = 0; link < LINKS; link++)
  await signer(`eu/${link}`, { nowMs: 1_800_000_000_000, seconds: 1500 })
const microseconds = ((performance.now() - startMs) / LINKS) * 1_000
say(`a signed link: ${microseconds.toFixed(1)} us   ${microseconds < 20 ? 'reached' : 'MISSED '} < 20 us`)

async function compare(name: string, load: (peer: Peer) => Promise<{ operations: number }>): Promise<void> {
  const results: number[][] = peers.map(() => [])
  for (let round = 0; round < rounds; round++) {
    for (const [index, peer] of peers.entries()) {
      const cpuBefore = await peer.cpuSeconds()
      const { operations } = await load(peer)
      results[index]?.push(operations / ((await peer.cpuSeconds()) - cpuBefore))
    }
  }
  const [mine = 0, other = 0] = results.map((values) => values.sort((a, b) => a - b)[values.length >> 1] ?? 0)
  const digits = mine < 100 ? 1 : 0
  say(
    `${name.padEnd(26)}${mine.toFixed(digits).padStart(12)}${other.toFixed(digits).padStart(22)}  ${(mine / other).toFixed(1)}x`,
  )
}

/** Streams a blob in one PATCH and completes it. Returns milliseconds from the last byte of the PATCH to the 201. */
async function lastByteTo201(peer: Peer, size: number): Promise<number> {
  const client = ociClient(peer.url, peer.headers.Authorization)
  const started = await client.request('POST', '/v2/bench/push/blobs/uploads/')
  const chunk = randomBytes(MIB)
  const hash = createHash('sha256')
  let lastMs = 0
  const location = new URL(started.headers.get('location') ?? '', peer.url)
  const patched = await new Promise<string>((resolve, reject) => {
    const sent = request(location, { method: 'PATCH', headers: { ...peer.headers } }, (answer) => {
      answer.resume()
      if (answer.statusCode === 202) resolve(answer.headers.location ?? '')
      else reject(new Error(`PATCH returned ${answer.statusCode}`))
    })
    sent.on('error', reject)
    const stream = async () => {
      for (let done = 0; done < size; done += chunk.length) {
        hash.update(chunk)
        if (!sent.write(chunk)) await new Promise((drain) => sent.once('drain', drain))
      }
      lastMs = performance.now()
      sent.end()
    }
    stream().catch(reject)
  })
  const separator = patched.includes('?') ? '&' : '?'
  const ended = await client.request('PUT', `${patched}${separator}digest=sha256:${hash.digest('hex')}`)
  if (ended.status !== 201) throw new Error(`PUT returned ${ended.status}: ${await ended.text()}`)
  return performance.now() - lastMs
}

/** Counts the requests to the store for one push and one pull of each size. */
async function countRequests(): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const proxy = stack.use(await startStoreProxy(minio))
  const env = { ...minio.env, PORTOLAN_S3_ENDPOINT: proxy.url, PORTOLAN_S3_PREFIX: 'counted' }
  const counted = [stack.use(await startPortolanPeer(join(directory, 'counted'), env))]
  const other = await startDistributionPeer(join(directory, 'counted-theirs'), driver(proxy.url, 'counted'))
  if (other !== undefined) counted.push(stack.use(other))
  say('requests to the store')
  for (const peer of counted) {
    const client = ociClient(peer.url, peer.headers.Authorization)
    const counts: string[] = []
    for (const [name, size] of [
      ['4 KB', 4096],
      ['20 MiB', 20 * MIB],
    ] as const) {
      const blob = randomBytes(size)
      const count = async (work: () => Promise<unknown>) => {
        await pause(300)
        proxy.heal()
        await work()
        await pause(300)
        return proxy.requests.length
      }
      const pulling = () => client.get(`/v2/bench/app/blobs/${sha256(blob)}`)
      const pushed = await count(() => client.pushBlob('bench/app', blob))
      counts.push(`${name}: push ${pushed}, pull ${await count(pulling)}, again ${await count(pulling)}`)
    }
    say(`${peer.name.padEnd(22)}${counts.join('   ')}`)
  }
}

/** Starts uploads that send this many bytes and then pause. Resolves when the server has received all of them. */
async function pausedUploads(peer: Peer, count: number, bytes: number) {
  const client = ociClient(peer.url, peer.headers.Authorization)
  const chunk = randomBytes(100_000)
  return Promise.all(
    Array.from({ length: count }, async () => {
      const started = await client.request('POST', '/v2/bench/push/blobs/uploads/')
      const location = new URL(started.headers.get('location') ?? '', peer.url)
      const sent = request(location, { method: 'PATCH', headers: { ...peer.headers } })
      sent.on('error', () => {})
      for (let done = 0; done < bytes; done += chunk.length) {
        if (!sent.write(chunk)) await new Promise((drain) => sent.once('drain', drain))
      }
      return sent
    }),
  )
}
