// Pushes for a given time and prints the number of 201 responses. Started by load.ts.

import { createHash, randomBytes } from 'node:crypto'
import { Agent, request } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import type { PushOptions } from './load.ts'

const options = JSON.parse(process.argv[2] ?? '{}') as PushOptions & {
  url: string
  headers: Record<string, string>
}
const agent = new Agent({ keepAlive: true, maxSockets: options.clients })
const content = randomBytes(options.bytes)
const untilMs = performance.now() + options.seconds * 1_000
let done = 0

function send(
  method: string,
  target: string,
  body?: Buffer,
  type = 'application/octet-stream',
): Promise<{ status: number; location: string }> {
  return new Promise((resolve, reject) => {
    const headers = { ...options.headers, 'Content-Type': type, 'Content-Length': body?.length ?? 0 }
    const sent = request(new URL(target, options.url), { method, agent, headers }, (answer) => {
      answer.resume()
      answer.on('end', () =>
        resolve({ status: answer.statusCode ?? 0, location: answer.headers.location ?? '' }),
      )
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

async function pushBlob(own: Buffer): Promise<number> {
  // The first bytes differ each time, so that nothing is deduplicated.
  randomBytes(16).copy(own)
  const digest = createHash('sha256').update(own).digest('hex')
  const begun = await send('POST', `/v2/${options.repository}/blobs/uploads/`)
  if (options.way === 'put') return (await send('PUT', withDigest(begun.location, digest), own)).status
  const patched = await send('PATCH', begun.location, own)
  return (await send('PUT', withDigest(patched.location, digest))).status
}

const withDigest = (location: string, digest: string) =>
  `${location}${location.includes('?') ? '&' : '?'}digest=sha256:${digest}`

async function pushTag(): Promise<number> {
  const mediaType = 'application/vnd.oci.image.index.v1+json'
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType,
      manifests: [],
      annotations: { at: String(Math.random()) },
    }),
  )
  return (await send('PUT', `/v2/${options.repository}/manifests/${options.tag}`, manifest, mediaType)).status
}

async function client(): Promise<void> {
  const own = Buffer.from(content)
  const everyMs = options.rate === undefined ? 0 : (1_000 * options.clients) / options.rate
  for (let nextMs = performance.now(); performance.now() < untilMs; nextMs += everyMs) {
    if (everyMs > 0) await pause(Math.max(0, nextMs - performance.now()))
    const status = options.tag === undefined ? await pushBlob(own) : await pushTag()
    if (status !== 201) throw new Error(`answered ${status}`)
    done++
  }
}

await Promise.all(Array.from({ length: options.clients }, client))
process.stdout.write(String(done))
agent.destroy()
