// Manifests and indexes: from bytes to what they refer to (image-spec, "Image Manifest" and "Image Index").
//
// The bytes are stored as they came and never written again; this only reads them, once, at the push. Whatever two
// readers could understand differently is refused (CVE-2021-41190 and its kin): a body that is both image and index, a
// type that contradicts the Content-Type, keys that a case-insensitive parser would take for known ones. Everything
// else is accepted: unknown fields, unknown types of layers, nested and empty indexes, embedded data.

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
  /** Its place among those of its kind. */
  readonly position: number
  /** Where it is looked up: an index may list plain blobs (BuildKit caches do). */
  readonly target: 'blob' | 'manifest'
  /** A layer whose bytes may live elsewhere: its absence is accepted. */
  readonly foreign: boolean
  /** `os/architecture` of an index's child, where it says so. */
  readonly platform?: string
}

export interface Manifest {
  readonly mediaType: string
  readonly kind: 'image' | 'index'
  readonly references: readonly Reference[]
  readonly subject?: Descriptor
  /** The manifest's own artifactType, else an image's config type: what a referrers answer shows. */
  readonly artifactType?: string
  readonly annotations?: Readonly<Record<string, string>>
}

/**
 * Bytes of annotations, as JSON, that one descriptor in a list of referrers carries. Signers attach a few hundred; with
 * this bound a page holds several at least. The specification wants a descriptor to have all annotations of its manifest
 * ("Listing Referrers"), so a manifest with a subject and more of them is refused at the push, where its author sees it.
 * One that was accepted before, or elsewhere, is listed without annotations: the manifest itself has them.
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

/** What answers need of a manifest beyond its bytes. It follows from the bytes alone, so it is kept with them. */
export interface ManifestFacts {
  /** The child of an index that serves a client which can use a single image only. */
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
 * @param contentType the request's header; it and the body's mediaType must not contradict each other
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
  if (contentType !== undefined && announced === undefined) throw invalid('Content-Type is no media type')
  if (!has(fields, 'mediaType') || fields.mediaType === '') {
    if (announced === undefined) throw invalid('neither Content-Type nor mediaType says what this is')
    return announced
  }
  if (typeof fields.mediaType !== 'string' || !isMediaType(fields.mediaType)) {
    throw invalid('mediaType is no media type')
  }
  if (announced !== undefined && announced !== fields.mediaType) {
    throw invalid('mediaType and Content-Type contradict each other')
  }
  return fields.mediaType
}

function imageReferences(fields: Fields, bounds: { descriptorsMax: number }): Reference[] {
  if (Object.hasOwn(fields, 'manifests')) throw invalid('an image manifest has no manifests')
  if (!has(fields, 'config')) throw invalid('an image manifest has a config')
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
    if (Object.hasOwn(fields, field)) throw invalid(`an index has no ${field}`)
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
    throw invalid(`${where}: urls is no list of at most ${URLS_MAX}`)
  return { descriptor: { mediaType, digest: parsed, size }, urls, platform: platformOf(fields) }
}

function platformOf(fields: Fields): string | undefined {
  const platform = fields.platform as Fields | null | undefined
  if (typeof platform !== 'object' || platform === null) return undefined
  const { os, architecture } = platform
  return typeof os === 'string' && typeof architecture === 'string' ? `${os}/${architecture}` : undefined
}

/** Never fetched by the registry; kept from sending clients anywhere but to a web server. */
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
  throw invalid('artifactType is no media type')
}

function annotationsOf(fields: Fields): Readonly<Record<string, string>> | undefined {
  if (!has(fields, 'annotations')) return undefined
  const annotations = fields.annotations
  if (typeof annotations !== 'object' || Array.isArray(annotations))
    throw invalid('annotations are no object')
  for (const value of Object.values(annotations as Fields)) {
    if (typeof value !== 'string') throw invalid('an annotation is no string')
  }
  return annotations as Readonly<Record<string, string>>
}

function checkReferrerAnnotations(annotations: Readonly<Record<string, string>>): void {
  if (Buffer.byteLength(JSON.stringify(annotations)) <= REFERRER_ANNOTATIONS_BYTES_MAX) return
  throw invalid(
    `a manifest with a subject has at most ${REFERRER_ANNOTATIONS_BYTES_MAX} bytes of annotations`,
  )
}

/** Go writes an empty list as null: both are a list. */
function listOf(fields: Fields, field: string, bounds: { descriptorsMax: number }): unknown[] {
  if (!Object.hasOwn(fields, field)) throw invalid(`${field} is missing`)
  const list = fields[field] ?? []
  if (!Array.isArray(list)) throw invalid(`${field} is no list`)
  if (list.length > bounds.descriptorsMax)
    throw invalid(`${field} has more than ${bounds.descriptorsMax} entries`)
  return list
}

function has(fields: Fields, field: string): boolean {
  return fields[field] !== undefined && fields[field] !== null
}

/** An object none of whose keys a case-insensitive reader would take for another. */
function objectOf(value: unknown, what: string, fields: KnownFields): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(`${what} is no object`)
  for (const key of Object.keys(value)) {
    const folded = foldCase(key)
    if (Object.hasOwn(fields, folded) && fields[folded] !== key) {
      throw invalid(`${what} has a key that differs from a known one in case only`)
    }
  }
  return value as Fields
}

/** Each known field by its folded name: one look-up a key, however many keys a client sends. */
type KnownFields = Readonly<Record<string, string>>

function known(...fields: readonly string[]): KnownFields {
  return Object.freeze(Object.fromEntries(fields.map((field) => [foldCase(field), field])))
}

/** Simple case folding as Go's encoding/json does it: the long s and the Kelvin sign fold to ASCII letters too. */
function foldCase(key: string): string {
  return key.length > 32 ? '' : key.toLowerCase().replaceAll('\u017f', 's').replaceAll('\u212a', 'k')
}

function invalid(message: string, cause?: unknown): RegistryError {
  return new RegistryError('MANIFEST_INVALID', { message, cause })
}
