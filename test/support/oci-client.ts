// A small registry client for tests, based on fetch. It sends what the test asks for and asserts only what its own
// methods promise.

import assert from 'node:assert/strict'
import { sha256, type TestImage, type TestManifest } from './image.ts'

export interface OciClient {
  readonly url: string
  request(method: string, path: string, options?: RequestOptions): Promise<Response>
  pushBlob(repository: string, bytes: Buffer): Promise<void>
  pushManifest(repository: string, reference: string, manifest: TestManifest): Promise<Response>
  /** Pushes the blobs and the manifest. The tag is optional. */
  pushImage(repository: string, image: TestImage, tag?: string): Promise<void>
  /** Returns the status and the body. */
  get(
    path: string,
    headers?: Record<string, string>,
  ): Promise<{ status: number; headers: Headers; body: Buffer }>
}

export interface RequestOptions {
  headers?: Record<string, string>
  body?: Buffer | string | ReadableStream
}

export function ociClient(url: string, authorization?: string): OciClient {
  const client: OciClient = {
    url,
    request(method, path, options = {}) {
      return fetch(new URL(path, url), {
        method,
        headers: { ...(authorization && { Authorization: authorization }), ...options.headers },
        redirect: 'manual',
        ...(options.body !== undefined && { body: options.body, duplex: 'half' }),
      } as RequestInit)
    },
    async pushBlob(repository, bytes) {
      const started = await client.request('POST', `/v2/${repository}/blobs/uploads/`)
      assert.equal(started.status, 202, await started.text())
      const location = started.headers.get('location')
      const target = `${location}${location?.includes('?') ? '&' : '?'}digest=${sha256(bytes)}`
      const ended = await client.request('PUT', target, { body: bytes })
      assert.equal(ended.status, 201, await ended.text())
    },
    pushManifest(repository, reference, manifest) {
      return client.request('PUT', `/v2/${repository}/manifests/${reference}`, {
        headers: { 'Content-Type': manifest.mediaType },
        body: manifest.bytes,
      })
    },
    async pushImage(repository, image, tag) {
      for (const blob of image.blobs) await client.pushBlob(repository, blob)
      const pushed = await client.pushManifest(repository, tag ?? image.digest, image)
      assert.equal(pushed.status, 201, await pushed.text())
    },
    async get(path, headers = {}) {
      const response = await client.request('GET', path, { headers })
      const body = Buffer.from(await response.arrayBuffer())
      return { status: response.status, headers: response.headers, body }
    },
  }
  return client
}
