// Manifests: HEAD, GET, PUT, DELETE by tag or digest (distribution-spec, "Pulling manifests", "Pushing manifests").

import { RegistryError } from '#shared/errors.ts'
import { wantsSingleImage } from '#shared/oci/accept.ts'
import { hasEntityTag, parseEntityTags } from '#shared/oci/conditional.ts'
import { parseManifest } from '#shared/oci/manifest.ts'
import { manifestKind } from '#shared/oci/media-type.ts'
import { parseQuery } from '#shared/oci/query.ts'
import { parseReference, parseTag, type RepositoryName, type Tag } from '#shared/oci/reference.ts'
import {
  findManifest,
  type ManifestReference,
  type PulledManifest,
  pullManifest,
} from '#shared/registry/pull.ts'
import { type ManifestConditions, pushManifest } from '#shared/registry/push-manifest.ts'
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

/** What every client can read back; the spec asks for at least this much. */
const MANIFEST_BYTES_MAX = 4 * 1024 * 1024
/** Tags of one push by digest. */
const TAGS_MAX = 32

interface ManifestPath {
  readonly name: RepositoryName
  readonly reference: string
  readonly query: string
}

export async function getManifest(exchange: Exchange, path: ManifestPath): Promise<void> {
  const { headers } = exchange.request
  const reference = requireReference(path.reference)
  const stored = await pullManifest(exchange.region, { repository: path.name, reference })
  const manifest =
    reference.kind === 'tag' && manifestKind(stored.mediaType) === 'index' && wantsSingleImage(headers.accept)
      ? await amd64Child(exchange, path.name, stored)
      : stored
  const answer = manifestHeaders(manifest, reference)
  if (hasEntityTag(headers['if-none-match'], manifest.digest)) return sendEmpty(exchange, 304, answer)
  sendBytes(exchange, { status: 200, headers: answer, body: manifest.bytes })
  if (exchange.region.pulls !== undefined && !isHead(exchange)) {
    exchange.region.pulls.count({
      repository: path.name,
      digest: manifest.digest,
      mediaType: manifest.mediaType,
      size: manifest.bytes.length,
      tag: reference.kind === 'tag' ? reference.tag : undefined,
    })
  }
}

/** A client from before indexes gets the image it would have got then; an index without one is sent as it is. */
async function amd64Child(
  exchange: Exchange,
  repository: RepositoryName,
  index: PulledManifest,
): Promise<PulledManifest> {
  const { references } = parseManifest(index.bytes, index.mediaType, {
    descriptorsMax: Number.MAX_SAFE_INTEGER,
  })
  const child = references.find(
    ({ platform, mediaType }) => platform === 'linux/amd64' && manifestKind(mediaType) === 'image',
  )
  if (child === undefined) return index
  const reference = { kind: 'digest', digest: child.digest } as const
  const held = await findManifest(exchange.region, { repository, reference })
  return held === undefined ? index : pullManifest(exchange.region, { repository, reference })
}

/** The type stands alone: some clients compare it as a whole, so there is never a charset. */
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
  const { region, request } = exchange
  const reference = requireReference(path.reference)
  const tags = queryTags(path.query)
  const bytes = await readBody(exchange, { bytesMax: MANIFEST_BYTES_MAX, code: 'MANIFEST_INVALID' })
  const conditions = conditionsOf(exchange)
  if (conditions.ifNoneMatch && reference.kind === 'digest' && tags.length === 0) {
    await requireAbsent(exchange, path.name, reference)
  }
  const { digest, subject, outboxId } = await pushManifest(region, {
    repository: path.name,
    reference,
    tags,
    // Node keeps the first of several; what two readers could take for two types is refused.
    contentType: request.headersDistinct['content-type']?.join(', '),
    bytes,
    conditions,
    provenance: provenanceOf(exchange),
  })
  sendEmpty(exchange, 201, {
    Location: `/v2/${path.name}/manifests/${digest}`,
    'Docker-Content-Digest': digest,
    ...(subject !== undefined && { 'OCI-Subject': subject }),
    ...(tags.length > 0 && { 'OCI-Tag': [...tags] }),
    ...positionHeader(exchange, outboxId),
  })
}

export async function deleteManifest(exchange: Exchange, path: ManifestPath): Promise<void> {
  const { region } = exchange
  const reference = requireReference(path.reference)
  const provenance = provenanceOf(exchange)
  const { outboxId } =
    reference.kind === 'tag'
      ? await deleteTag(region, { repository: path.name, tag: reference.tag, provenance })
      : await deleteContent(region, {
          repository: path.name,
          kind: 'manifest',
          digest: reference.digest,
          provenance,
        })
  sendEmpty(exchange, 202, positionHeader(exchange, outboxId))
}

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

function conditionsOf(exchange: Exchange): ManifestConditions {
  const { 'if-match': ifMatch, 'if-none-match': ifNoneMatch } = exchange.request.headers
  return {
    ...(ifMatch !== undefined && { ifMatch: parseEntityTags(ifMatch) }),
    ifNoneMatch: parseEntityTags(ifNoneMatch).includes('*'),
  }
}

/** Content is immutable: if it comes into being between this and the push, both pushes were of the same bytes. */
async function requireAbsent(
  exchange: Exchange,
  repository: RepositoryName,
  reference: ManifestReference,
): Promise<void> {
  const found = await findManifest(exchange.region, { repository, reference })
  if (found !== undefined) throw new RegistryError('PRECONDITION_FAILED')
}
