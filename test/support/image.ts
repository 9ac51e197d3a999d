// Content to push: deterministic bytes, and minimal images.

import { createHash, randomBytes } from 'node:crypto'
import type { Digest } from '#shared/oci/digest.ts'

export const IMAGE = 'application/vnd.oci.image.manifest.v1+json'
export const INDEX = 'application/vnd.oci.image.index.v1+json'
export const CONFIG = 'application/vnd.oci.image.config.v1+json'
export const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip'

export function sha256(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest
}

export function sha512(bytes: Uint8Array | string): Digest {
  return `sha512:${createHash('sha512').update(bytes).digest('hex')}` as Digest
}

export interface TestManifest {
  readonly bytes: Buffer
  readonly digest: Digest
  readonly mediaType: string
}

export interface TestImage extends TestManifest {
  readonly blobs: readonly Buffer[]
}

export function descriptor(
  mediaType: string,
  bytes: Buffer,
): { mediaType: string; digest: Digest; size: number } {
  return { mediaType, digest: sha256(bytes), size: bytes.length }
}

export function manifestOf(mediaType: string, body: Record<string, unknown>): TestManifest {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...body }))
  return { bytes, digest: sha256(bytes), mediaType }
}

/** Returns an image with one config and one unique layer. */
export function testImage(extra: Record<string, unknown> = {}, layer: Buffer = randomBytes(64)): TestImage {
  const config = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', of: sha256(layer) }))
  const manifest = manifestOf(IMAGE, {
    config: descriptor(CONFIG, config),
    layers: [descriptor(LAYER, layer)],
    ...extra,
  })
  return { ...manifest, blobs: [config, layer] }
}
