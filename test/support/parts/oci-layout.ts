// An image on disk in the OCI image layout, for clients that copy from it. Nothing has to be pulled from a remote
// registry.

import { createHash, randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { command } from './command.ts'

export interface LayoutImage {
  readonly directory: string
  readonly digest: string
  readonly layerBytes: number
}

/** Creates a layout with one image that has one unique layer, tagged `latest`. */
export async function makeLayout(directory: string, layerBytes = 100_000): Promise<LayoutImage> {
  const blobs = join(directory, 'blobs', 'sha256')
  await mkdir(blobs, { recursive: true })
  const content = join(directory, 'content')
  await mkdir(content)
  await writeFile(join(content, 'hello'), randomBytes(layerBytes))
  await command('tar', ['-C', content, '-cf', join(directory, 'layer.tar'), 'hello'])
  const { readFile, rm } = await import('node:fs/promises')
  const tar = await readFile(join(directory, 'layer.tar'))
  await rm(content, { recursive: true })
  await rm(join(directory, 'layer.tar'))
  const put = async (bytes: Buffer, mediaType: string) => {
    const hex = createHash('sha256').update(bytes).digest('hex')
    await writeFile(join(blobs, hex), bytes)
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length }
  }
  const json = (value: unknown) => Buffer.from(JSON.stringify(value))
  const diff = createHash('sha256').update(tar).digest('hex')
  const layer = await put(gzipSync(tar), 'application/vnd.oci.image.layer.v1.tar+gzip')
  const config = await put(
    json({
      architecture: 'amd64',
      os: 'linux',
      config: { Cmd: ['/hello'] },
      rootfs: { type: 'layers', diff_ids: [`sha256:${diff}`] },
    }),
    'application/vnd.oci.image.config.v1+json',
  )
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  const manifest = await put(json({ schemaVersion: 2, mediaType, config, layers: [layer] }), mediaType)
  const annotations = { 'org.opencontainers.image.ref.name': 'latest' }
  await writeFile(
    join(directory, 'index.json'),
    json({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  )
  await writeFile(join(directory, 'oci-layout'), json({ imageLayoutVersion: '1.0.0' }))
  return { directory, digest: manifest.digest, layerBytes: layer.size }
}
