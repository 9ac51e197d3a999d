// Google Cloud Storage under the part store. Only this file uses @google-cloud/storage.
//
// An upload in parts is a resumable session: bytes are appended in multiples of 256 KiB. They are sent without the SDK,
// because only the address of the session is needed. The store skips bytes that it already has, so a part whose
// response was lost is sent again. The SDK does not support abort signals, so retry.ts stops waiting itself. The
// retries of the SDK are off.

import { Storage } from '@google-cloud/storage'
import type { BlobsConfig } from '../../config/blobs.ts'
import type { Failure, ObjectService, PartUpload } from './object-service.ts'

const KIB = 1024
const UNIT_BYTES = 256 * KIB
const PART_BYTES = 20 * UNIT_BYTES
/** 5 TiB, the largest object. */
const PARTS_MAX = (5 * KIB ** 4) / PART_BYTES
const REMOVALS_AT_ONCE = 16
/** How many times the remainder of one part is sent if the store accepts only some of it. */
const PARTIAL_MAX = 5

type GcsConfig = Extract<BlobsConfig, { kind: 'gcs' }>

export function openGcsService(config: GcsConfig): ObjectService {
  const { prefix } = config
  const storage = new Storage({
    retryOptions: { autoRetry: false },
    ...(config.endpoint !== undefined && { apiEndpoint: config.endpoint, projectId: 'portolan' }),
  })
  const bucket = storage.bucket(config.bucket)
  const file = (key: string) =>
    bucket.file(prefix + key, config.kmsKey === undefined ? {} : { kmsKeyName: config.kmsKey })
  const metadata = {
    contentType: 'application/octet-stream',
    ...(config.storageClass !== undefined && { storageClass: config.storageClass }),
  }

  /** Sends one request to a session. 308: it expects more bytes. */
  async function toSession(
    upload: PartUpload,
    request: { method: 'PUT' | 'DELETE'; range?: string; body?: Buffer },
    signal: AbortSignal,
  ): Promise<Response> {
    const answer = await fetch(upload.id, {
      method: request.method,
      signal,
      redirect: 'manual',
      headers: request.range === undefined ? {} : { 'Content-Range': request.range },
      body: request.body === undefined || request.body.length === 0 ? null : new Uint8Array(request.body),
    })
    await answer.arrayBuffer()
    return answer
  }

  return {
    name: 'gcs',
    place: `the Google Cloud Storage bucket "${config.bucket}"`,
    rest: 'row',
    partBytes: (number) => (number <= PARTS_MAX ? PART_BYTES : undefined),
    split: (bytes) => ({ part: bytes - (bytes % UNIT_BYTES), rest: bytes % UNIT_BYTES }),

    async put(key, body) {
      await file(key).save(body, { resumable: false, validation: 'crc32c', metadata })
    },
    async putIfAbsent(name, body) {
      try {
        await file(name).save(body, {
          resumable: false,
          validation: 'crc32c',
          metadata,
          preconditionOpts: { ifGenerationMatch: 0 },
        })
      } catch (thrown) {
        if (Number((thrown as { code?: unknown }).code) !== 412) throw thrown
      }
    },
    async startUpload(key) {
      const [uri] = await file(key).createResumableUpload({ metadata })
      return { key, id: uri }
    },
    async putPart(upload, { offset, body }, signal) {
      const end = offset + body.length
      for (let from = offset, tries = 0; from < end; tries++) {
        if (tries >= PARTIAL_MAX) throw new HttpError(503)
        const answer = await toSession(
          upload,
          { method: 'PUT', range: `bytes ${from}-${end - 1}/*`, body: body.subarray(from - offset) },
          signal,
        )
        if (answer.status !== 308) throw new HttpError(answer.status === 404 ? 410 : answer.status)
        const has = Number(/^bytes=0-(\d+)$/.exec(answer.headers.get('range') ?? '')?.[1] ?? -1) + 1
        // Fewer bytes than recorded: this is not the session that the row refers to.
        if (has < from) throw new HttpError(410)
        from = has
      }
      return ''
    },
    async finishUpload(upload, { offset, rest }, signal) {
      const size = offset + rest.length
      const range = rest.length === 0 ? `bytes */${size}` : `bytes ${offset}-${size - 1}/${size}`
      const answer = await toSession(upload, { method: 'PUT', range, body: rest }, signal)
      if (answer.status === 308 || answer.status === 404) throw new HttpError(410)
      if (!answer.ok) throw new HttpError(answer.status)
    },
    async dropUpload(upload, signal) {
      const { status } = await toSession(upload, { method: 'DELETE' }, signal)
      if (status >= 500) throw new HttpError(status)
    },
    async get(key, range) {
      const body = file(key).createReadStream({ ...range, validation: false, decompress: false })
      const bytes = await new Promise<number>((resolve, reject) => {
        body.once('error', reject)
        body.once(
          'response',
          (answer: { statusCode?: number; status?: number; headers: Record<string, string> | Headers }) => {
            const { headers } = answer
            // For an error response, the error event that follows reports the error.
            if ((answer.statusCode ?? answer.status ?? 0) >= 400) return
            resolve(
              Number(headers instanceof Headers ? headers.get('content-length') : headers['content-length']),
            )
          },
        )
        // Reading starts the request.
        body.read(0)
      })
      return { bytes, body }
    },
    async size(key) {
      try {
        const [{ size }] = await file(key).getMetadata()
        return Number(size)
      } catch (thrown) {
        if (gcsFailureOf(thrown, config).kind === 'missing') return undefined
        throw thrown
      }
    },
    async remove(keys, signal) {
      for (let from = 0; from < keys.length; from += REMOVALS_AT_ONCE) {
        signal.throwIfAborted()
        const some = keys.slice(from, from + REMOVALS_AT_ONCE)
        await Promise.all(some.map((key) => file(key).delete({ ignoreNotFound: true })))
      }
    },
    async list(after, limit) {
      // startOffset is inclusive. The smallest name above the key is the key followed by the smallest character.
      const startOffset = after === '' ? prefix : `${prefix}${after}!`
      const [files] = await bucket.getFiles({ prefix, startOffset, maxResults: limit, autoPaginate: false })
      return files.map(({ name, metadata: known }) => ({
        key: name.slice(prefix.length),
        size: Number(known.size ?? 0),
        modifiedAtMs: Date.parse(known.updated ?? known.timeCreated ?? '') || Number.POSITIVE_INFINITY,
      }))
    },
    // Sessions expire after a week.
    listUploads: async () => [],
    async presign(key, { nowMs, seconds }) {
      const [url] = await file(key).getSignedUrl({
        version: 'v4',
        action: 'read',
        accessibleAt: nowMs,
        expires: nowMs + seconds * 1_000,
        promptSaveAs: key,
        responseType: 'application/octet-stream',
      })
      return url
    },
    failureOf: (thrown) => gcsFailureOf(thrown, config),
    [Symbol.asyncDispose]: async () => {},
  }
}

class HttpError extends Error {
  readonly code: number

  constructor(status: number) {
    super(`the store answered ${status}`)
    this.code = status
  }
}

const AGAIN: readonly string[] = Object.freeze([
  'ECONNRESET',
  'ECONNREFUSED',
  'ETIMEDOUT',
  'EPIPE',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'UND_ERR_SOCKET',
  'UND_ERR_CONNECT_TIMEOUT',
  'CONTENT_DOWNLOAD_MISMATCH',
  'FILE_NO_UPLOAD',
])

/** Classifies an error of the SDK or a session. Exported for its table test. */
export function gcsFailureOf(thrown: unknown, config: Pick<GcsConfig, 'bucket' | 'endpoint'>): Failure {
  const {
    code: own,
    cause,
    message,
  } = thrown as { code?: unknown; cause?: { code?: unknown }; message?: string }
  const code = own ?? cause?.code
  const status = typeof code === 'number' ? code : Number(code)
  if (status === 404 && /bucket/i.test(message ?? '')) {
    return {
      kind: 'denied',
      again: false,
      message: `the bucket "${config.bucket}" does not exist: create it, or correct PORTOLAN_GCS_BUCKET`,
    }
  }
  if (status === 404) return { kind: 'missing', again: false, message: 'the object does not exist' }
  if (status === 410 || status === 499) {
    return { kind: 'lost', again: false, message: 'the upload session has ended' }
  }
  if (status === 401 || status === 403) {
    return {
      kind: 'denied',
      again: false,
      message: 'the credentials have no right to do this (the role Storage Object User is needed)',
    }
  }
  if (status === 416) return { kind: 'corrupt', again: false, message: 'the object is shorter than recorded' }
  if (/default credentials/i.test(message ?? '')) {
    return {
      kind: 'denied',
      again: false,
      message: 'no credentials were found: use workload identity or set GOOGLE_APPLICATION_CREDENTIALS',
    }
  }
  const again = status >= 500 || status === 429 || status === 408 || AGAIN.includes(String(code))
  return { kind: 'unavailable', again, message: `the store answered ${String(code ?? message)}` }
}
