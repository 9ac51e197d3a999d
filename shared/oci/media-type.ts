// The media types that a registry interprets (image-spec, "Media Types"; docker's schema 2). Only the manifest itself
// must have a known type. Unknown types below it are content like any other and are never refused.

export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json'

const KINDS: Readonly<Record<string, 'image' | 'index'>> = Object.freeze({
  [OCI_MANIFEST]: 'image',
  [DOCKER_MANIFEST]: 'image',
  [OCI_INDEX]: 'index',
  [DOCKER_LIST]: 'index',
})

/** Returns the kind of manifest that this type denotes, or undefined if it is not a manifest type. */
export function manifestKind(mediaType: string): 'image' | 'index' | undefined {
  return Object.hasOwn(KINDS, mediaType) ? KINDS[mediaType] : undefined
}

const FOREIGN_LAYERS: readonly string[] = Object.freeze([
  'application/vnd.docker.image.rootfs.foreign.diff.tar',
  'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
  'application/vnd.oci.image.layer.nondistributable.v1.tar',
  'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
  'application/vnd.oci.image.layer.nondistributable.v1.tar+zstd',
])

/** Returns true if the type says that the layer's bytes are stored elsewhere. Manifests are accepted without them. */
export function isForeignLayer(mediaType: string): boolean {
  return FOREIGN_LAYERS.includes(mediaType)
}

export const MEDIA_TYPE_LENGTH_MAX = 255
/** type/subtype of RFC 6838, 4.2, without its limit of 64 characters per side, which real types exceed. */
const MEDIA_TYPE = /^[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*\/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*$/

export function isMediaType(text: string): boolean {
  return text.length <= MEDIA_TYPE_LENGTH_MAX && MEDIA_TYPE.test(text)
}

/** Returns the type of a Content-Type header without its parameters, or undefined if it is malformed. */
export function parseMediaType(header: string): string | undefined {
  if (header.length > 1024) return undefined
  const semicolon = header.indexOf(';')
  const text = (semicolon === -1 ? header : header.slice(0, semicolon)).replace(/^[ \t]+|[ \t]+$/g, '')
  return isMediaType(text) ? text : undefined
}
