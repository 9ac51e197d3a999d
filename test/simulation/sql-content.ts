// The content of the simulated repository as real manifests. Maps the names of content.ts to bytes with digests, and
// back.

import type { PushedReference } from '#shared/db/push-manifest.ts'
import type { Digest } from '#shared/oci/digest.ts'
import { CONFIG, IMAGE, INDEX, LAYER, sha256 } from '../support/image.ts'
import { CONTENT, LAYERS } from './content.ts'

export interface SqlContent {
  readonly digest: Digest
  readonly bytes: Buffer
  readonly mediaType: string
  readonly references: readonly PushedReference[]
}

export interface SqlNames {
  readonly manifests: ReadonlyMap<string, SqlContent>
  readonly layers: ReadonlyMap<string, Digest>
  /** The digest of a name of content.ts. */
  digestOf(name: string): Digest
  nameOf(digest: string): string
}

export function nameContent(): SqlNames {
  const layers = new Map(LAYERS.map((layer) => [layer, sha256(layer)]))
  const manifests = new Map<string, SqlContent>()
  const digestOf = (name: string): Digest => {
    const digest = layers.get(name) ?? manifests.get(name)?.digest
    if (digest === undefined) throw new Error(`no such content: ${name}`)
    return digest
  }
  // Children come first in content.ts. The first layer of an image is its config, so that it references nothing else.
  for (const [name, { children, blobs }] of Object.entries(CONTENT)) {
    const mediaType = children.length > 0 ? INDEX : IMAGE
    const of = (type: string) => (digest: string) => ({ mediaType: type, digest: digestOf(digest), size: 1 })
    const [config, ...others] = blobs
    const body =
      config === undefined
        ? { manifests: children.map(of(IMAGE)) }
        : { config: of(CONFIG)(config), layers: others.map(of(LAYER)) }
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...body, annotations: { name } }))
    const reference = (kind: 'config' | 'layer' | 'child') => (digest: string, position: number) => ({
      kind,
      target: kind === 'child' ? ('manifest' as const) : ('blob' as const),
      position,
      digest: digestOf(digest),
      mandatory: true,
      required: true,
    })
    const references = [
      ...children.map(reference('child')),
      ...(config === undefined ? [] : [reference('config')(config, 0)]),
      ...others.map(reference('layer')),
    ]
    manifests.set(name, { digest: sha256(bytes), bytes, mediaType, references })
  }
  const names = new Map([
    ...[...layers].map(([name, digest]) => [digest, name] as const),
    ...[...manifests].map(([name, { digest }]) => [digest, name] as const),
  ])
  return { manifests, layers, digestOf, nameOf: (digest) => names.get(digest as Digest) ?? digest }
}
