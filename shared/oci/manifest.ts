// Manifests and indexes: extracts from the bytes what they refer to (image-spec, "Image Manifest" and "Image Index").
//
// The bytes are stored as received and never rewritten. This code reads them once, at the push. Anything that two
// readers could interpret differently is refused (CVE-2021-41190 and similar): a body that is both image and index, a
// type that contradicts the Content-Type, keys that a case-insensitive parser would take for known ones. Everything
// else is accepted: unknown fields, unknown layer types, nested and empty indexes, embedded data.

import { RegistryError } from '#shared/errors.ts'
import { type Digest, parseDigest } from './digest.ts'
import { isForeignLayer, isMediaType, manifestKind, parseMediaType } from './media-type.ts'
import { JsonError, parseStrictJson } from './strict-json.ts'

export interface Descriptor {
  readonly mediaType: string
  readonly digest: Digest
  /** Bytes, 0 to 2^53 - 1. */
  readonly size: number
}

export interface Reference extends Descriptor {
  readonly kind: 'config' | 'layer' | 'child'
  /** Its index among the references of the same kind. */
  readonly position: number
  /** Where to look it up. An index may list plain blobs (BuildKit caches do). */
  readonly target: 'blob' | 'manifest'
  /** True for a layer whose bytes may be stored elsewhere. The manifest is accepted without it. */
  readonly foreign: boolean
  /** `os/architecture` of an index's child, if the descriptor states it. */
  readonly platform?: string
}

export interface Manifest {
  readonly mediaType: string
  readonly kind: 'image' | 'index'
  readonly references: readonly Reference[]
  readonly subject?: Descriptor
  /** The manifest's own artifactType, else an image's config type. The referrers list shows it. */
  readonly artifactType?: string
  readonly annotations?: Readonly<Record<string, string>>
}

/**
 * The most bytes of annotations, as JSON, that one descriptor in a referrers list carries. Signers attach a few hundred
 * bytes. The bound lets a page hold at least several descriptors. The specification requires a descriptor to carry all
 * annotations of its manifest ("Listing Referrers"). So a manifest that has a subject and more annotations is refused
 * at the push, where its author sees the error. One that was accepted before this rule, or elsewhere, is listed without
 * annotations; the manifest itself still has them.
 */
export const REFERRER_ANNOTATIONS_BYTES_MAX = 512 * 1024

type Fields = Readonly<Record<string, unknown>>

const MANIFEST_FIELDS = known(
  'schemaVersion',
  'mediaType',
  'artifactType',
  'config',
  'layers',
  'manifests',
  'fsLayers',
  'subject',
  'annotations',
)
const DESCRIPTOR_FIELDS = known(
  'mediaType',
  'digest',
  'size',
  'urls',
  'annotations',
  'data',
  'artifactType',
  'platform',
)
const URLS_MAX = 100

/** What responses need of a manifest besides its bytes. It depends only on the bytes, so it is stored with them. */
export interface ManifestFacts {
  /** The child of an index that is served to a client that can use only a single image. */
  readonly singleImage: Digest | undefined
}

export function manifestFacts({ kind, references }: Manifest): ManifestFacts {
  if (kind !== 'index') return { singleImage: undefined }
  const child = references.find(
    ({ platform, mediaType }) => platform === 'linux/amd64' && manifestKind(mediaType) === 'image',
  )
  return { singleImage: child?.digest }
}

/**
 * @param contentType the request's header; it must not contradict the body's mediaType
 * @throws RegistryError MANIFEST_INVALID, or DIGEST_INVALID for a descriptor's digest
 */
export function parseManifest(
  bytes: Uint8Array,
  contentType: string | undefined,
  bounds: { descriptorsMax: number },
): Manifest {
  const fields = objectOf(parse(bytes), 'the manifest', MANIFEST_FIELDS)
  const mediaType = mediaTypeOf(fields, contentType)
  const kind = manifestKind(mediaType)
  if (kind === undefined) throw invalid(`manifests of type ${mediaType} are not supported`)
  if (fields.schemaVersion !== 2) throw invalid('schemaVersion is not 2')
  const references = kind === 'image' ? imageReferences(fields, bounds) : indexReferences(fields, bounds)
  const subject = has(fields, 'subject') ? descriptorOf(fields.subject, 'subject').descriptor : undefined
  const config = references.find((reference) => reference.kind === 'config')
  const artifactType = artifactTypeOf(fields) ?? config?.mediaType
  const annotations = annotationsOf(fields)
  if (subject !== undefined && annotations !== undefined) checkReferrerAnnotations(annotations)
  return {
    mediaType,
    kind,
    references,
    ...(subject !== undefined && { subject }),
    ...(artifactType !== undefined && { artifactType }),
    ...(annotations !== undefined && { annotations }),
  }
}

function parse(bytes: Uint8Array): unknown {
  try {
    return parseStrictJson(bytes)
  } catch (thrown) {
    if (thrown instanceof JsonError) throw invalid(`the body cannot be read: ${thrown.message}`, thrown)
    throw thrown
  }
}

function mediaTypeOf(fields: Fields, contentType: string | undefined): string {
  const announced = contentType === undefined ? undefined : parseMediaType(contentType)
  if (contentType !== undefined && announced === undefined)
    throw invalid('Content-Type is not a valid media type')
  if (!has(fields, 'mediaType') || fields.mediaType === '') {
    if (announced === undefined) throw invalid('both Content-Type and mediaType are missing')
    return announced
  }
  if (typeof fields.mediaType !== 'string' || !isMediaType(fields.mediaType)) {
    throw invalid('mediaType is not a valid media type')
  }
  if (announced !== undefined && announced !== fields.mediaType) {
    throw invalid('mediaType and Content-Type differ')
  }
  return fields.mediaType
}

function imageReferences(fields: Fields, bounds: { descriptorsMax: number }): Reference[] {
  if (Object.hasOwn(fields, 'manifests')) throw invalid('an image manifest must not have manifests')
  if (!has(fields, 'config')) throw invalid('an image manifest must have a config')
  const layers = listOf(fields, 'layers', bounds)
  const config = descriptorOf(fields.config, 'config').descriptor
  return [
    { ...config, kind: 'config', position: 0, target: 'blob', foreign: false },
    ...layers.map((layer, position): Reference => {
      const { descriptor, urls } = descriptorOf(layer, `layers[${position}]`)
      const foreign = isForeignLayer(descriptor.mediaType)
      if (foreign || urls.length > 0) checkUrls(urls)
      return { ...descriptor, kind: 'layer', position, target: 'blob', foreign }
    }),
  ]
}

function indexReferences(fields: Fields, bounds: { descriptorsMax: number }): Reference[] {
  for (const field of ['config', 'layers', 'fsLayers']) {
    if (Object.hasOwn(fields, field)) throw invalid(`an index must not have ${field}`)
  }
  return listOf(fields, 'manifests', bounds).map((child, position): Reference => {
    const { descriptor, platform } = descriptorOf(child, `manifests[${position}]`)
    const target = manifestKind(descriptor.mediaType) === undefined ? 'blob' : 'manifest'
    const reference = { ...descriptor, kind: 'child' as const, position, target, foreign: false } as const
    return platform === undefined ? reference : { ...reference, platform }
  })
}

function descriptorOf(
  value: unknown,
  where: string,
): { descriptor: Descriptor; urls: unknown[]; platform: string | undefined } {
  const fields = objectOf(value, where, DESCRIPTOR_FIELDS)
  const { mediaType, digest, size } = fields
  if (typeof mediaType !== 'string' || !isMediaType(mediaType))
    throw invalid(`${where}: mediaType is missing`)
  if (typeof digest !== 'string') throw invalid(`${where}: digest is missing`)
  const parsed = parseDigest(digest)
  if (parsed === undefined) {
    throw new RegistryError('DIGEST_INVALID', { message: `${where}: the digest is malformed or unsupported` })
  }
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw invalid(`${where}: size is not an integer from 0 to 2^53 - 1`)
  }
  const urls = fields.urls ?? []
  if (!Array.isArray(urls) || urls.length > URLS_MAX)
    throw invalid(`${where}: urls is not a list of at most ${URLS_MAX} entries`)
  return { descriptor: { mediaType, digest: parsed, size }, urls, platform: platformOf(fields) }
}

function platformOf(fields: Fields): string | undefined {
  const platform = fields.platform as Fields | null | undefined
  if (typeof platform !== 'object' || platform === null) return undefined
  const { os, architecture } = platform
  return typeof os === 'string' && typeof architecture === 'string' ? `${os}/${architecture}` : undefined
}

/** The registry never fetches these URLs. The check keeps clients from being sent to anything but a web server. */
function checkUrls(urls: unknown[]): void {
  for (const url of urls) {
    if (typeof url !== 'string' || !/^https?:\/\//i.test(url))
      throw invalid('a layer url is not http or https')
  }
}

function artifactTypeOf(fields: Fields): string | undefined {
  const { artifactType } = fields
  if (artifactType === undefined || artifactType === null || artifactType === '') return undefined
  if (typeof artifactType === 'string' && isMediaType(artifactType)) return artifactType
  throw invalid('artifactType is not a valid media type')
}

function annotationsOf(fields: Fields): Readonly<Record<string, string>> | undefined {
  if (!has(fields, 'annotations')) return undefined
  const annotations = fields.annotations
  if (typeof annotations !== 'object' || Array.isArray(annotations))
    throw invalid('annotations is not an object')
  for (const value of Object.values(annotations as Fields)) {
    if (typeof value !== 'string') throw invalid('an annotation is not a string')
  }
  return annotations as Readonly<Record<string, string>>
}

function checkReferrerAnnotations(annotations: Readonly<Record<string, string>>): void {
  if (Buffer.byteLength(JSON.stringify(annotations)) <= REFERRER_ANNOTATIONS_BYTES_MAX) return
  throw invalid(
    `a manifest with a subject may have at most ${REFERRER_ANNOTATIONS_BYTES_MAX} bytes of annotations`,
  )
}

/** Returns the list. Go writes an empty list as null, so null counts as an empty list. */
function listOf(fields: Fields, field: string, bounds: { descriptorsMax: number }): unknown[] {
  if (!Object.hasOwn(fields, field)) throw invalid(`${field} is missing`)
  const list = fields[field] ?? []
  if (!Array.isArray(list)) throw invalid(`${field} is not a list`)
  if (list.length > bounds.descriptorsMax)
    throw invalid(`${field} has more than ${bounds.descriptorsMax} entries`)
  return list
}

function has(fields: Fields, field: string): boolean {
  return fields[field] !== undefined && fields[field] !== null
}

/** Returns the object. Refuses it if a case-insensitive reader would take one of its keys for a known one. */
function objectOf(value: unknown, what: string, fields: KnownFields): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(`${what} is not an object`)
  for (const key of Object.keys(value)) {
    const folded = foldCase(key)
    if (Object.hasOwn(fields, folded) && fields[folded] !== key) {
      throw invalid(`${what} has a key that differs from a known key only in case`)
    }
  }
  return value as Fields
}

/** Each known field by its case-folded name: one lookup per key, however many keys a client sends. */
type KnownFields = Readonly<Record<string, string>>

function known(...fields: readonly string[]): KnownFields {
  return Object.freeze(Object.fromEntries(fields.map((field) => [foldCase(field), field])))
}

/** Simple case folding, as in Go's encoding/json: the long s and the Kelvin sign also fold to ASCII letters. */
function foldCase(key: string): string {
  return key.length > 32 ? '' : key.toLowerCase().replaceAll('\u017f', 's').replaceAll('\u212a', 'k')
}

function invalid(message: string, cause?: unknown): RegistryError {
  return new RegistryError('MANIFEST_INVALID', { message, cause })
}
