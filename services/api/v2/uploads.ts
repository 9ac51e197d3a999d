// Upload sessions: POST, PATCH, PUT, GET, DELETE (distribution-spec, "Pushing blobs").
//
// Clients depend on the headers. Location is path-absolute. Range has no unit, and docker writes it into manifests as
// the size of the layer. A mount never fails: it becomes an upload instead.

import type { WritePosition } from '#shared/db/registers.ts'
import { RegistryError } from '#shared/errors.ts'
import { type ByteRange, formatUploadRange, parseUploadRange } from '#shared/oci/byte-range.ts'
import {
  type Digest,
  type DigestAlgorithm,
  digestBytes,
  parseAlgorithm,
  parseDigest,
} from '#shared/oci/digest.ts'
import { parseQuery, type Query } from '#shared/oci/query.ts'
import { parseRepositoryName, type RepositoryName } from '#shared/oci/reference.ts'
import { mountFrom } from '#shared/registry/mount-blob.ts'
import { appendToUpload, finishUpload, pushWholeBlob } from '#shared/registry/push-blob.ts'
import {
  cancelUpload,
  openUpload,
  type UploadPosition,
  uploadPosition,
} from '#shared/registry/upload-sessions.ts'
import { callerMayPull, unauthorized } from '../authorize.ts'
import { contentLength, incomingBody } from '../body.ts'
import { type Exchange, type Headers, positionHeader, provenanceOf, sendEmpty } from '../exchange.ts'

interface UploadsPath {
  readonly name: RepositoryName
  readonly query: string
}

interface UploadPath extends UploadsPath {
  readonly id: string
}

const EMPTY_DIGESTS: readonly Digest[] = Object.freeze([
  digestBytes('sha256', Buffer.alloc(0)),
  digestBytes('sha512', Buffer.alloc(0)),
])

export async function startUpload(exchange: Exchange, path: UploadsPath): Promise<void> {
  const query = parseQuery(path.query)
  if (query.get('mount') !== undefined && (await mount(exchange, path, query))) return
  const digest = query.get('digest') === undefined ? undefined : requireDigest(query)
  if (digest !== undefined && carriesBlob(exchange, digest)) {
    const position = await pushWholeBlob(exchange.registry, {
      repository: path.name,
      digest,
      body: incomingBody(exchange),
      provenance: provenanceOf(exchange),
    })
    return created(exchange, path.name, digest, position)
  }
  const position = await openUpload(exchange.registry, {
    repository: path.name,
    algorithm: digest === undefined ? requestedAlgorithm(query) : requestedAlgorithm(query, digest),
    provenance: provenanceOf(exchange),
  })
  sendEmpty(exchange, 202, sessionHeaders(path.name, position))
}

/** `?digest=` without a body is the empty blob if the digest matches it. Otherwise the client wants a session. */
function carriesBlob(exchange: Exchange, digest: Digest): boolean {
  return contentLength(exchange) !== 0 || EMPTY_DIGESTS.includes(digest)
}

function requestedAlgorithm(query: Query, digest?: Digest): DigestAlgorithm {
  const text = query.get('digest-algorithm') ?? digest?.split(':', 1)[0]
  const algorithm = text === undefined ? 'sha256' : parseAlgorithm(text)
  if (algorithm === undefined) {
    throw new RegistryError('DIGEST_INVALID', { message: 'the digest algorithm is not supported' })
  }
  return algorithm
}

/** Returns true if the mount succeeded and the reply was sent. A mount that is not possible becomes an upload. */
async function mount(exchange: Exchange, path: UploadsPath, query: Query): Promise<boolean> {
  const digest = parseDigest(query.get('mount') ?? '')
  const fromText = query.get('from')
  const from = fromText === undefined ? undefined : parseRepositoryName(fromText)
  if (digest === undefined || (fromText !== undefined && from === undefined)) return false
  const mayPull = callerMayPull(exchange)
  if (from !== undefined && !mayPull(from)) refuseSource(exchange, path.name, from)
  const mounted = await mountFrom(exchange.registry, {
    repository: path.name,
    digest,
    from,
    mayPull,
    provenance: provenanceOf(exchange),
  })
  if (mounted === undefined) return false
  created(exchange, path.name, digest, mounted)
  return true
}

/**
 * A token that does not name the source gets a challenge that does, so that the client can fetch a larger one. A token
 * that named it and was denied access continues with an upload.
 */
function refuseSource(exchange: Exchange, name: RepositoryName, from: RepositoryName): void {
  const asked = exchange.identity.scopes?.some((scope) => scope.name === from)
  if (asked) return
  throw unauthorized(exchange, {
    scope: `repository:${name}:pull,push repository:${from}:pull`,
    error: 'insufficient_scope',
  })
}

export async function appendUpload(exchange: Exchange, path: UploadPath): Promise<void> {
  const position = await appendToUpload(exchange.registry, {
    repository: path.name,
    id: path.id,
    body: incomingBody(exchange),
    range: contentRange(exchange),
    actor: provenanceOf(exchange).actor,
  })
  sendEmpty(exchange, 202, sessionHeaders(path.name, position))
}

export async function endUpload(exchange: Exchange, path: UploadPath): Promise<void> {
  const digest = requireDigest(parseQuery(path.query))
  const position = await finishUpload(exchange.registry, {
    repository: path.name,
    id: path.id,
    digest,
    body: incomingBody(exchange),
    range: contentRange(exchange),
    provenance: provenanceOf(exchange),
  })
  created(exchange, path.name, digest, position)
}

export async function getUpload(exchange: Exchange, path: UploadPath): Promise<void> {
  const position = await uploadPosition(exchange.registry, { repository: path.name, id: path.id })
  sendEmpty(exchange, 204, sessionHeaders(path.name, position))
}

export async function deleteUpload(exchange: Exchange, path: UploadPath): Promise<void> {
  await cancelUpload(exchange.registry, { repository: path.name, id: path.id })
  sendEmpty(exchange, 204)
}

/** Requires exactly one digest, because a reply has only one Docker-Content-Digest. */
function requireDigest(query: Query): Digest {
  const values = [...new Set(query.getAll('digest'))]
  const digest = parseDigest(values[0] ?? '')
  if (digest === undefined || values.length !== 1) throw new RegistryError('DIGEST_INVALID')
  return digest
}

function contentRange(exchange: Exchange): ByteRange | undefined {
  const header = exchange.request.headers['content-range']
  const range = parseUploadRange(header)
  if (range === 'malformed') throw new RegistryError('RANGE_INVALID', { status: 400 })
  return range === 'absent' ? undefined : range
}

function sessionHeaders(name: RepositoryName, { id, size }: UploadPosition): Headers {
  return {
    Location: `/v2/${name}/blobs/uploads/${id}`,
    Range: formatUploadRange(size),
    'Docker-Upload-UUID': id,
  }
}

function created(
  exchange: Exchange,
  name: RepositoryName,
  digest: Digest,
  position: WritePosition | undefined,
): void {
  sendEmpty(exchange, 201, {
    Location: `/v2/${name}/blobs/${digest}`,
    'Docker-Content-Digest': digest,
    ...(position !== undefined && positionHeader(exchange, position)),
  })
}
