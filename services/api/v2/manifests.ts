// Manifests: HEAD, GET, PUT, DELETE by tag or digest (distribution-spec, "Pulling manifests", "Pushing manifests").

import { RegistryError } from '#shared/errors.ts'
import { wantsSingleImage } from '#shared/oci/accept.ts'
import {
  ENTITY_TAGS_LENGTH_MAX,
  hasEntityTag,
  parseEntityTags,
  type WriteConditions,
} from '#shared/oci/conditional.ts'
import { manifestKind } from '#shared/oci/media-type.ts'
import { parseQuery } from '#shared/oci/query.ts'
import { parseReference, parseTag, type RepositoryName, type Tag } from '#shared/oci/reference.ts'
import {
  type ManifestReference,
  type PulledManifest,
  pullManifest,
  pullSingleImage,
} from '#shared/registry/pull.ts'
import { pushManifest } from '#shared/registry/push-manifest.ts'
import { deleteContent, deleteTag } from '#shared/registry/remove.ts'
import { readBody } from '../body.ts'
import {
  type Exchange,
  type Headers,
  isHead,
  positionHeader,
  provenanceOf,
  sendBytes,
  sendEmpty,
} from '../exchange.ts'

/** A size that every client can read. The spec requires at least this much. */
const MANIFEST_BYTES_MAX = 4 * 1024 * 1024
/** Maximum number of tags of one push by digest. */
const TAGS_MAX = 32

interface ManifestPath {
  readonly name: RepositoryName
  readonly reference: string
  readonly query: string
}

export async function getManifest(exchange: Exchange, path: ManifestPath): Promise<void> {
  const { headers } = exchange.request
  const reference = parseReference(path.reference)
  // Only writers get syntax errors. For a reader, a reference that cannot exist does not exist.
  if (reference.kind === 'invalid') throw new RegistryError('MANIFEST_UNKNOWN')
  const stored = await pullManifest(exchange.registry, { repository: path.name, reference })
  // A client that predates indexes gets the image that it would have got then. An index without such an image is sent
  // as it is.
  const single =
    reference.kind === 'tag' && manifestKind(stored.mediaType) === 'index' && wantsSingleImage(headers.accept)
      ? await pullSingleImage(exchange.registry, { repository: path.name, index: stored })
      : undefined
  const manifest = single ?? stored
  const answer = manifestHeaders(manifest, reference)
  if (hasEntityTag(headers['if-none-match'], manifest.digest)) return sendEmpty(exchange, 304, answer)
  sendBytes(exchange, { status: 200, headers: answer, body: manifest.bytes })
  if (exchange.edge.pulls !== undefined && !isHead(exchange)) {
    exchange.edge.pulls.count({
      repository: path.name,
      digest: manifest.digest,
      mediaType: manifest.mediaType,
      size: manifest.bytes.length,
      tag: reference.kind === 'tag' ? reference.tag : undefined,
    })
  }
}

/** The media type has no charset parameter, because some clients compare the whole value. */
function manifestHeaders(manifest: PulledManifest, reference: ManifestReference): Headers {
  return {
    'Docker-Distribution-API-Version': 'registry/2.0',
    'X-Content-Type-Options': 'nosniff',
    'Content-Type': manifest.mediaType,
    'Docker-Content-Digest': manifest.digest,
    ETag: `"${manifest.digest}"`,
    'Cache-Control': reference.kind === 'tag' ? 'private, no-cache' : 'private, max-age=31536000, immutable',
    'Content-Disposition': 'attachment',
    'Content-Security-Policy': 'sandbox',
  }
}

export async function putManifest(exchange: Exchange, path: ManifestPath): Promise<void> {
  const { registry, request } = exchange
  const reference = requireReference(path.reference)
  const tags = queryTags(path.query)
  const bytes = await readBody(exchange, { bytesMax: MANIFEST_BYTES_MAX, code: 'MANIFEST_INVALID' })
  const { digest, subject, position } = await pushManifest(registry, {
    repository: path.name,
    reference,
    tags,
    // Node keeps the first of several fields. A value that two readers could interpret as two types is rejected.
    contentType: request.headersDistinct['content-type']?.join(', '),
    bytes,
    conditions: conditionsOf(exchange),
    provenance: provenanceOf(exchange),
  })
  sendEmpty(exchange, 201, {
    Location: `/v2/${path.name}/manifests/${digest}`,
    'Docker-Content-Digest': digest,
    ...(subject !== undefined && { 'OCI-Subject': subject }),
    ...(tags.length > 0 && { 'OCI-Tag': [...tags] }),
    ...positionHeader(exchange, position),
  })
}

export async function deleteManifest(exchange: Exchange, path: ManifestPath): Promise<void> {
  const { registry } = exchange
  const reference = requireReference(path.reference)
  const provenance = provenanceOf(exchange)
  const position =
    reference.kind === 'tag'
      ? await deleteTag(registry, { repository: path.name, tag: reference.tag, provenance })
      : await deleteContent(registry, {
          repository: path.name,
          kind: 'manifest',
          digest: reference.digest,
          provenance,
        })
  sendEmpty(exchange, 202, positionHeader(exchange, position))
}

/** @throws RegistryError TAG_INVALID or DIGEST_INVALID: a write must name its target in full */
function requireReference(text: string): ManifestReference {
  const reference = parseReference(text)
  if (reference.kind === 'invalid') throw new RegistryError(reference.code)
  return reference
}

function queryTags(query: string): Tag[] {
  const texts = parseQuery(query).getAll('tag')
  if (texts.length > TAGS_MAX) {
    throw new RegistryError('REQUEST_INVALID', { status: 414, message: `more than ${TAGS_MAX} tags` })
  }
  return texts.map((text) => {
    const tag = parseTag(text)
    if (tag === undefined) throw new RegistryError('TAG_INVALID')
    return tag
  })
}

function conditionsOf(exchange: Exchange): WriteConditions {
  const { 'if-match': ifMatch, 'if-none-match': ifNoneMatch } = exchange.request.headers
  if ((ifNoneMatch?.length ?? 0) > ENTITY_TAGS_LENGTH_MAX) {
    throw new RegistryError('REQUEST_INVALID', { message: 'If-None-Match is too long' })
  }
  return {
    ...(ifMatch !== undefined && { ifMatch: parseEntityTags(ifMatch) }),
    ...(ifNoneMatch !== undefined && { ifNoneMatch: parseEntityTags(ifNoneMatch) }),
  }
}
