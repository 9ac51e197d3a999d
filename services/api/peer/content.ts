// Content for other regions:
//
//   GET /peer/v1/blobs/<digest>?repository=<name>
//   GET /peer/v1/manifests/<digest>?repository=<name>
//
// Serves only content that this region holds and that the repository shows here. It never asks another region, so a
// request between regions is not forwarded. Blobs support ranges as pulls do.

import { RegistryError } from '#shared/errors.ts'
import { type Digest, parseDigest } from '#shared/oci/digest.ts'
import { parseQuery } from '#shared/oci/query.ts'
import { parseRepositoryName, type RepositoryName } from '#shared/oci/reference.ts'
import { findBlob, pullManifest } from '#shared/registry/pull.ts'
import { type Exchange, registryHeaders, sendBytes } from '../exchange.ts'
import { serveBlob } from '../v2/blobs.ts'

interface ContentPath {
  readonly id: string
  readonly query: string
}

export async function peerBlob(exchange: Exchange, path: ContentPath): Promise<void> {
  const asked = askedFor(path)
  const blob = await findBlob(exchange.registry, asked)
  if (blob === undefined) throw new RegistryError('BLOB_UNKNOWN', { details: [{ digest: asked.digest }] })
  await serveBlob(exchange, blob)
}

export async function peerManifest(exchange: Exchange, path: ContentPath): Promise<void> {
  const { repository, digest } = askedFor(path)
  const { bytes, mediaType } = await pullManifest(exchange.registry, {
    repository,
    reference: { kind: 'digest', digest },
  })
  sendBytes(exchange, {
    status: 200,
    headers: { ...registryHeaders(), 'Content-Type': mediaType, 'Docker-Content-Digest': digest },
    body: bytes,
  })
}

function askedFor({ id, query }: ContentPath): { repository: RepositoryName; digest: Digest } {
  const digest = parseDigest(id)
  if (digest === undefined) throw new RegistryError('DIGEST_INVALID')
  const repository = parseRepositoryName(parseQuery(query).get('repository') ?? '')
  if (repository === undefined) throw new RegistryError('NAME_INVALID')
  return { repository, digest }
}
