// The media types that mean something to a registry (image-spec, "Media Types"; docker's schema 2). Unknown types are
// content like any other and are never refused below the manifest itself.

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

/** What a manifest of this type is; undefined for a type that is no manifest. */
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

/** A layer whose bytes live elsewhere by its type: the registry accepts manifests without having it. */
export function isForeignLayer(mediaType: string): boolean {
  return FOREIGN_LAYERS.includes(mediaType)
}

export const MEDIA_TYPE_LENGTH_MAX = 255
/** type/subtype of RFC 6838, 4.2, without its length limit of 64 a side, which real types exceed. */
const MEDIA_TYPE = /^[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*\/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*$/

export function isMediaType(text: string): boolean {
  return text.length <= MEDIA_TYPE_LENGTH_MAX && MEDIA_TYPE.test(text)
}

/** The type of a Content-Type header without its parameters; undefined when it is not one. */
export function parseMediaType(header: string): string | undefined {
  if (header.length > 1024) return undefined
  const semicolon = header.indexOf(';')
  const text = (semicolon === -1 ? header : header.slice(0, semicolon)).replace(/^[ \t]+|[ \t]+$/g, '')
  return isMediaType(text) ? text : undefined
}
