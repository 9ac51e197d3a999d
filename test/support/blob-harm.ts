// Ways to damage the bytes of a committed blob, and every way a client can upload the blob again. Tests check that the
// registry notices the damage and that the upload repairs it.

import assert from 'node:assert/strict'
import { open, rm, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { blobPlace } from '#shared/db/blobs.ts'
import { sha256 } from './image.ts'
import type { OciClient } from './oci-client.ts'
import type { TestNode } from './region.ts'

export const HARMS = ['missing', 'short', 'flipped'] as const
export type Harm = (typeof HARMS)[number]

/** Returns the path of the file that the row of this content's digest names. */
export async function fileOf(node: TestNode, bytes: Buffer): Promise<string> {
  const place = await blobPlace(node.region.db, sha256(bytes))
  assert.ok(place)
  return join(node.region.config.dataDir, 'eu', 'blobs', place.key.slice(0, 2), place.key)
}

export async function harmFile(path: string, harm: Harm): Promise<void> {
  if (harm === 'missing') return rm(path)
  const { size } = await stat(path)
  if (harm === 'short') return truncate(path, size - 1)
  await using file = await open(path, 'r+')
  const byte = Buffer.alloc(1)
  const middle = Math.floor(size / 2)
  await file.read(byte, 0, 1, middle)
  await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, middle)
}

/** One way for a client to upload a blob. Returns the last response. */
type Upload = (client: OciClient, repository: string, bytes: Buffer) => Promise<Response>

async function started(client: OciClient, repository: string): Promise<string> {
  const answer = await client.request('POST', `/v2/${repository}/blobs/uploads/`)
  assert.equal(answer.status, 202)
  return answer.headers.get('location') ?? ''
}

async function chunks(client: OciClient, location: string, bytes: Buffer): Promise<void> {
  const size = Math.ceil(bytes.length / 3)
  for (let start = 0; start < bytes.length; start += size) {
    const body = bytes.subarray(start, start + size)
    const headers = { 'Content-Range': `${start}-${start + body.length - 1}` }
    assert.equal((await client.request('PATCH', location, { headers, body })).status, 202)
  }
}

export const UPLOADS: Readonly<Record<string, Upload>> = Object.freeze({
  'one POST': (client, repository, bytes) =>
    client.request('POST', `/v2/${repository}/blobs/uploads/?digest=${sha256(bytes)}`, { body: bytes }),
  'POST and PUT': async (client, repository, bytes) =>
    client.request('PUT', `${await started(client, repository)}?digest=${sha256(bytes)}`, { body: bytes }),
  'POST, PATCH and PUT': async (client, repository, bytes) => {
    const location = await started(client, repository)
    assert.equal((await client.request('PATCH', location, { body: bytes })).status, 202)
    return client.request('PUT', `${location}?digest=${sha256(bytes)}`)
  },
  chunks: async (client, repository, bytes) => {
    const location = await started(client, repository)
    await chunks(client, location, bytes)
    return client.request('PUT', `${location}?digest=${sha256(bytes)}`)
  },
  'chunks, the last with the PUT': async (client, repository, bytes) => {
    const location = await started(client, repository)
    const last = bytes.length - 10
    await chunks(client, location, bytes.subarray(0, last))
    return client.request('PUT', `${location}?digest=${sha256(bytes)}`, { body: bytes.subarray(last) })
  },
  'a mount that becomes an upload': async (client, repository, bytes) => {
    const digest = sha256(bytes)
    const mounted = await client.request('POST', `/v2/${repository}/blobs/uploads/?mount=${digest}&from=a`)
    assert.equal(mounted.status, 202, 'a lost blob is not mounted')
    return client.request('PUT', `${mounted.headers.get('location')}?digest=${digest}`, { body: bytes })
  },
})
