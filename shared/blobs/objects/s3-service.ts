// S3 (and every compatible server) under the part store. Only this file uses @aws-sdk/client-s3.
//
// A pull costs microseconds: GETs are signed here and sent by node:http (signed-get.ts), on the same connections as the
// requests of the SDK. Credentials come from the SDK's default chain. The SDK's own retries are off (only retry.ts
// retries). Its trailing checksums are off too, because several servers reject them. Bodies are in memory, so the
// signature covers their sha256, and the store rejects a body that changed in transit. All parts except the last must
// have 5 MiB.

import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectsCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  type StorageClass,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { NodeHttpHandler } from '@smithy/node-http-handler'
import type { BlobsConfig } from '../../config/blobs.ts'
import type { Failure, ObjectService } from './object-service.ts'
import { createS3GetSigner, createS3Signer, type S3SignerOptions } from './s3-presign.ts'
import { getSigned } from './signed-get.ts'

const MIB = 1024 * 1024
const PART_BYTES_MIN = 5 * MIB
/** Maximum number of connections of this process to the store. Further requests wait for a free one. */
const SOCKETS_MAX = 256
const CONNECT_MS_MAX = 5_000

type S3Config = Extract<BlobsConfig, { kind: 's3' }>

export function openS3Service(config: S3Config): ObjectService {
  const { bucket, prefix } = config
  const connections = { keepAlive: true, maxSockets: SOCKETS_MAX }
  const agents = { http: new HttpAgent(connections), https: new HttpsAgent(connections) }
  const client = new S3Client({
    ...(config.region !== undefined && { region: config.region }),
    ...(config.endpoint !== undefined && { endpoint: config.endpoint }),
    forcePathStyle: config.pathStyle,
    maxAttempts: 1,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Otherwise bodies over 2 MiB would be announced first, and each would close its connection.
    expectContinueHeader: false,
    requestHandler: new NodeHttpHandler({
      connectionTimeout: CONNECT_MS_MAX,
      httpAgent: agents.http,
      httpsAgent: agents.https,
      socketAcquisitionWarningTimeout: 60_000,
    }),
  })
  const nameOf = (key: string) => prefix + key
  const keyOf = (name: string | undefined) => (name ?? '').slice(prefix.length)
  const stored = {
    ...(config.storageClass !== undefined && { StorageClass: config.storageClass as StorageClass }),
    ...(config.kmsKeyId !== undefined && {
      ServerSideEncryption: 'aws:kms' as const,
      SSEKMSKeyId: config.kmsKeyId,
    }),
  }
  const place: S3SignerOptions = {
    bucket,
    pathStyle: config.pathStyle,
    endpoint: config.endpoint,
    region: async () => client.config.region(),
    credentials: async () => client.config.credentials(),
  }
  const signLink = createS3Signer(place)
  const signGet = createS3GetSigner(place)

  return {
    name: 's3',
    place: `the S3 bucket "${bucket}"`,
    rest: 'object',
    partBytes(number) {
      // At most 10,000 parts. The first ones are small, because each upload buffers one. 436 GB in all.
      if (number <= 2_000) return PART_BYTES_MIN
      if (number <= 4_000) return 16 * MIB
      return number <= 10_000 ? 64 * MIB : undefined
    },
    split: (bytes) => (bytes >= PART_BYTES_MIN ? { part: bytes, rest: 0 } : { part: 0, rest: bytes }),

    async put(key, body, abortSignal) {
      await client.send(
        new PutObjectCommand({
          Bucket: bucket,
          Key: nameOf(key),
          Body: body,
          ContentLength: body.length,
          ...stored,
        }),
        { abortSignal },
      )
    },
    async putIfAbsent(name, body, abortSignal) {
      const object = { Bucket: bucket, Key: nameOf(name), Body: body, ContentLength: body.length, ...stored }
      try {
        await client.send(new PutObjectCommand({ ...object, IfNoneMatch: '*' }), { abortSignal })
      } catch (thrown) {
        // 409: a concurrent conditional write of the same name was in progress, and its object stays.
        if (statusOf(thrown) === 412 || statusOf(thrown) === 409) return
        if (statusOf(thrown) !== 501) throw thrown
        await client.send(new PutObjectCommand(object), { abortSignal })
      }
    },
    async startUpload(key, abortSignal) {
      const { UploadId } = await client.send(
        new CreateMultipartUploadCommand({ Bucket: bucket, Key: nameOf(key), ...stored }),
        { abortSignal },
      )
      return { key, id: UploadId ?? '' }
    },
    async putPart({ key, id }, { number, body }, abortSignal) {
      const { ETag } = await client.send(
        new UploadPartCommand({
          Bucket: bucket,
          Key: nameOf(key),
          UploadId: id,
          PartNumber: number,
          Body: body,
          ContentLength: body.length,
        }),
        { abortSignal },
      )
      return ETag ?? ''
    },
    async finishUpload({ key, id }, { tags }, abortSignal) {
      const Parts = tags.map((ETag, index) => ({ ETag, PartNumber: index + 1 }))
      await client.send(
        new CompleteMultipartUploadCommand({
          Bucket: bucket,
          Key: nameOf(key),
          UploadId: id,
          MultipartUpload: { Parts },
        }),
        { abortSignal },
      )
    },
    async dropUpload({ key, id }, abortSignal) {
      try {
        await client.send(
          new AbortMultipartUploadCommand({ Bucket: bucket, Key: nameOf(key), UploadId: id }),
          { abortSignal },
        )
      } catch (thrown) {
        if (codeOf(thrown) !== 'NoSuchUpload') throw thrown
      }
    },
    async get(key, range, signal) {
      // The SDK learns the offset of this machine's clock from responses.
      const nowMs = Date.now() + client.config.systemClockOffset
      const request = await signGet(nameOf(key), { nowMs })
      return getSigned(request, { agents, connectMsMax: CONNECT_MS_MAX, range, signal })
    },
    async size(key, abortSignal) {
      try {
        const { ContentLength } = await client.send(
          new HeadObjectCommand({ Bucket: bucket, Key: nameOf(key) }),
          { abortSignal },
        )
        return ContentLength
      } catch (thrown) {
        if (statusOf(thrown) === 404) return undefined
        throw thrown
      }
    },
    async remove(keys, abortSignal) {
      const { Errors } = await client.send(
        new DeleteObjectsCommand({
          Bucket: bucket,
          Delete: { Quiet: true, Objects: keys.map((key) => ({ Key: nameOf(key) })) },
        }),
        { abortSignal },
      )
      const failed = (Errors ?? []).find(({ Code }) => Code !== 'NoSuchKey')
      if (failed !== undefined)
        throw Object.assign(new Error(failed.Message), { name: failed.Code ?? 'Unknown' })
    },
    async list(after, limit, abortSignal) {
      const { Contents } = await client.send(
        new ListObjectsV2Command({
          Bucket: bucket,
          Prefix: prefix,
          MaxKeys: limit,
          ...(after !== '' && { StartAfter: nameOf(after) }),
        }),
        { abortSignal },
      )
      return (Contents ?? []).map(({ Key, Size, LastModified }) => ({
        key: keyOf(Key),
        size: Size ?? 0,
        modifiedAtMs: LastModified?.getTime() ?? Number.POSITIVE_INFINITY,
      }))
    },
    async listUploads(abortSignal) {
      const { Uploads } = await client.send(
        new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix, MaxUploads: 1_000 }),
        { abortSignal },
      )
      return (Uploads ?? []).map(({ Key, UploadId, Initiated }) => ({
        key: keyOf(Key),
        id: UploadId ?? '',
        startedAtMs: Initiated?.getTime() ?? Number.POSITIVE_INFINITY,
      }))
    },
    presign: (key, options) => signLink(nameOf(key), options),
    failureOf: (thrown) => s3FailureOf(thrown, config),
    [Symbol.asyncDispose]: async () => client.destroy(),
  }
}

function codeOf(thrown: unknown): string {
  const { name, code, Code } = thrown as { name?: string; code?: unknown; Code?: unknown }
  if (typeof Code === 'string') return Code
  return typeof code === 'string' ? code : (name ?? '')
}

function statusOf(thrown: unknown): number | undefined {
  return (thrown as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode
}

/** Errors that may not occur again if the same request is repeated. */
const AGAIN: readonly string[] = Object.freeze([
  'SlowDown',
  'ServiceUnavailable',
  'InternalError',
  'RequestTimeout',
  'ThrottlingException',
  'OperationAborted',
  'IncompleteBody',
  // The body changed in transit.
  'BadDigest',
  'InvalidDigest',
  'XAmzContentSHA256Mismatch',
  'TimeoutError',
  'ECONNRESET',
  'ECONNREFUSED',
  'ETIMEDOUT',
  'EPIPE',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EAI_AGAIN',
])

const KINDS: Readonly<Record<string, Failure['kind']>> = Object.freeze({
  NoSuchKey: 'missing',
  NotFound: 'missing',
  NoSuchUpload: 'lost',
  InvalidPart: 'lost',
  InvalidPartOrder: 'lost',
  EntityTooSmall: 'lost',
  QuotaExceeded: 'full',
  XMinioStorageFull: 'full',
  NoSuchBucket: 'denied',
  AccessDenied: 'denied',
  InvalidAccessKeyId: 'denied',
  SignatureDoesNotMatch: 'denied',
  ExpiredToken: 'denied',
  CredentialsProviderError: 'denied',
  RequestTimeTooSkewed: 'denied',
  PermanentRedirect: 'denied',
  AuthorizationHeaderMalformed: 'denied',
  InvalidRange: 'corrupt',
})

/** Classifies an error of the SDK. Exported for its table test. */
export function s3FailureOf(thrown: unknown, config: Pick<S3Config, 'bucket' | 'endpoint'>): Failure {
  const code = codeOf(thrown)
  const status = statusOf(thrown) ?? 0
  const kind = KINDS[code] ?? (status === 403 ? 'denied' : status === 404 ? 'missing' : 'unavailable')
  const again = kind === 'unavailable' && (AGAIN.includes(code) || status >= 500 || status === 429)
  return { kind, again, message: sentence(code, thrown, config) }
}

function sentence(code: string, thrown: unknown, config: Pick<S3Config, 'bucket' | 'endpoint'>): string {
  const endpoint = config.endpoint ?? 'the S3 endpoint'
  switch (code) {
    case 'NoSuchBucket':
      return `the bucket "${config.bucket}" does not exist: create it, or correct PORTOLAN_S3_BUCKET`
    case 'AccessDenied':
      return 'the credentials have no right to do this (s3:GetObject, PutObject, DeleteObject, ListBucket and the multipart rights are needed)'
    case 'InvalidAccessKeyId':
    case 'SignatureDoesNotMatch':
      return 'the store does not accept the access key (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)'
    case 'CredentialsProviderError':
      return 'no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role'
    case 'RequestTimeTooSkewed':
      return "this machine's clock differs from the store's by more than a quarter of an hour"
    case 'PermanentRedirect':
    case 'AuthorizationHeaderMalformed':
      return 'the bucket is in another region: correct PORTOLAN_S3_REGION'
    case 'ECONNREFUSED':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
    case 'EHOSTUNREACH':
      return `${endpoint} cannot be reached (${code})`
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
    case 'CERT_HAS_EXPIRED':
      return `the TLS certificate of ${endpoint} is not accepted (${code}): NODE_EXTRA_CA_CERTS names further authorities`
    default:
      return `the store answered ${code || (thrown as Error).message}`
  }
}
