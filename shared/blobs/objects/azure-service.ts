// Azure Blob Storage under the part store. Only this file uses @azure/storage-blob and @azure/identity.
//
// Parts are staged blocks. Each has a unique id, so two attempts on one session never touch each other's blocks, and
// finishing an upload commits the list of ids. A block may have any size and any position. After a week the service
// drops staged blocks that were never committed.

import { createHash, randomBytes } from 'node:crypto'
import type { Readable } from 'node:stream'
import { DefaultAzureCredential } from '@azure/identity'
import {
  BlobSASPermissions,
  BlobServiceClient,
  generateBlobSASQueryParameters,
  StorageSharedKeyCredential,
  type UserDelegationKey,
} from '@azure/storage-blob'
import type { BlobsConfig } from '../../config/blobs.ts'
import type { ListedObject } from '../blob-store.ts'
import type { Failure, ObjectService } from './object-service.ts'

const MIB = 1024 * 1024
const BLOCKS_MAX = 50_000
const REMOVALS_AT_ONCE = 16
/**
 * Lists have no "after" parameter. They are split by this many first letters of the keys, and each part is read from
 * its beginning.
 */
const PREFIX_LETTERS = 3
const DELEGATION_SECONDS = 24 * 3600

type AzureConfig = Extract<BlobsConfig, { kind: 'azure' }>

export function openAzureService(config: AzureConfig): ObjectService {
  const { prefix, account } = config
  const shared = account && new StorageSharedKeyCredential(account.name, account.key)
  const service = new BlobServiceClient(config.endpoint, shared ?? new DefaultAzureCredential(), {
    retryOptions: { maxTries: 1 },
  })
  const container = service.getContainerClient(config.container)
  const blob = (key: string) => container.getBlockBlobClient(prefix + key)
  const tier = config.tier === undefined ? {} : { tier: config.tier }
  const md5 = (body: Buffer) => createHash('md5').update(body).digest()
  let delegation: { key: UserDelegationKey; untilMs: number } | undefined

  /**
   * The key that signs links: the account's key, or one that the service creates for our identity. The latter is
   * renewed daily.
   */
  async function signer(nowMs: number): Promise<UserDelegationKey | undefined> {
    if (shared !== undefined) return undefined
    if (delegation === undefined || delegation.untilMs < nowMs + 3_600_000) {
      const untilMs = nowMs + DELEGATION_SECONDS * 1_000
      const key = await service.getUserDelegationKey(new Date(nowMs - 60_000), new Date(untilMs))
      delegation = { key, untilMs }
    }
    return delegation.key
  }

  return {
    name: 'azure',
    place: `the Azure container "${config.container}"`,
    rest: 'row',
    // At most 50,000 blocks. The first ones are small, because each upload buffers one. 2.8 TB in all.
    partBytes: (number) => (number > BLOCKS_MAX ? undefined : (number <= 4_000 ? 5 : 64) * MIB),
    split: (bytes) => ({ part: bytes, rest: 0 }),

    async put(key, body, abortSignal) {
      const headers = { blobContentMD5: md5(body) }
      await blob(key).upload(body, body.length, { abortSignal, blobHTTPHeaders: headers, ...tier })
    },
    async putIfAbsent(name, body, abortSignal) {
      try {
        const options = { abortSignal, conditions: { ifNoneMatch: '*' }, ...tier }
        await blob(name).upload(body, body.length, options)
      } catch (thrown) {
        const { statusCode } = thrown as { statusCode?: number }
        if (statusCode !== 409 && statusCode !== 412) throw thrown
      }
    },
    startUpload: async (key) => ({ key, id: '' }),
    async putPart({ key }, { body }, abortSignal) {
      const id = randomBytes(24).toString('base64')
      await blob(key).stageBlock(id, body, body.length, { abortSignal, transactionalContentMD5: md5(body) })
      return id
    },
    async finishUpload({ key }, { tags }, abortSignal) {
      await blob(key).commitBlockList([...tags], { abortSignal, ...tier })
    },
    // A blob that has only staged blocks cannot be deleted; the service drops them. A finished blob is removed by key.
    dropUpload: async () => {},
    async get(key, range, abortSignal) {
      const { contentLength, readableStreamBody } = await blob(key).download(
        range?.start ?? 0,
        range && range.end - range.start + 1,
        { abortSignal, maxRetryRequests: 0 },
      )
      return { bytes: contentLength ?? -1, body: readableStreamBody as Readable }
    },
    async size(key, abortSignal) {
      try {
        return (await blob(key).getProperties({ abortSignal })).contentLength
      } catch (thrown) {
        if ((thrown as { statusCode?: number }).statusCode === 404) return undefined
        throw thrown
      }
    },
    async remove(keys, abortSignal) {
      for (let from = 0; from < keys.length; from += REMOVALS_AT_ONCE) {
        const some = keys.slice(from, from + REMOVALS_AT_ONCE)
        await Promise.all(some.map((key) => blob(key).deleteIfExists({ abortSignal })))
      }
    },
    async list(after, limit, abortSignal) {
      if (after === '') return firstObjects(limit, abortSignal)
      const listed: ListedObject[] = []
      const first = Number.parseInt(after.slice(0, PREFIX_LETTERS), 16)
      for (let letters = first; letters < 16 ** PREFIX_LETTERS && listed.length < limit; letters++) {
        const start = letters.toString(16).padStart(PREFIX_LETTERS, '0')
        for await (const item of container.listBlobsFlat({ prefix: prefix + start, abortSignal })) {
          const key = item.name.slice(prefix.length)
          if (key > after) listed.push(listedOf(key, item.properties))
          if (listed.length === limit) break
        }
      }
      return listed
    },
    listUploads: async () => [],
    async presign(key, { nowMs, seconds }) {
      const values = {
        containerName: config.container,
        blobName: prefix + key,
        permissions: BlobSASPermissions.parse('r'),
        startsOn: new Date(nowMs),
        expiresOn: new Date(nowMs + seconds * 1_000),
        contentDisposition: 'attachment',
        contentType: 'application/octet-stream',
      }
      const userKey = await signer(nowMs)
      const query =
        shared !== undefined
          ? generateBlobSASQueryParameters(values, shared)
          : userKey && generateBlobSASQueryParameters(values, userKey, container.accountName)
      return query && `${blob(key).url}?${query}`
    },
    failureOf: (thrown) => azureFailureOf(thrown, config),
    [Symbol.asyncDispose]: async () => {},
  }

  async function firstObjects(limit: number, abortSignal: AbortSignal): Promise<ListedObject[]> {
    const listed: ListedObject[] = []
    for await (const item of container.listBlobsFlat({ prefix, abortSignal })) {
      if (listed.length === limit) return listed
      listed.push(listedOf(item.name.slice(prefix.length), item.properties))
    }
    return listed
  }
}

function listedOf(key: string, properties: { contentLength?: number; lastModified: Date }): ListedObject {
  return { key, size: properties.contentLength ?? 0, modifiedAtMs: properties.lastModified.getTime() }
}

const AGAIN: readonly string[] = Object.freeze([
  'ServerBusy',
  'InternalError',
  'OperationTimedOut',
  'Md5Mismatch',
  'ECONNRESET',
  'ECONNREFUSED',
  'ETIMEDOUT',
  'EPIPE',
  'EAI_AGAIN',
  'EHOSTUNREACH',
])

const KINDS: Readonly<Record<string, Failure['kind']>> = Object.freeze({
  BlobNotFound: 'missing',
  ContainerNotFound: 'denied',
  AuthenticationFailed: 'denied',
  AuthorizationFailure: 'denied',
  AuthorizationPermissionMismatch: 'denied',
  InvalidBlockList: 'lost',
  InvalidRange: 'corrupt',
})

/** Classifies an error of the SDK. Exported for its table test. */
export function azureFailureOf(
  thrown: unknown,
  config: Pick<AzureConfig, 'container' | 'endpoint'>,
): Failure {
  const { code: own, statusCode = 0, name } = thrown as { code?: string; statusCode?: number; name?: string }
  const code = own ?? name ?? ''
  const kind = KINDS[code] ?? (statusCode === 403 ? 'denied' : statusCode === 404 ? 'missing' : 'unavailable')
  const again = kind === 'unavailable' && (AGAIN.includes(code) || statusCode >= 500 || statusCode === 429)
  return { kind, again, message: sentence(code, config) }
}

function sentence(code: string, config: Pick<AzureConfig, 'container' | 'endpoint'>): string {
  switch (code) {
    case 'ContainerNotFound':
      return `the container "${config.container}" does not exist: create it, or correct PORTOLAN_AZURE_CONTAINER`
    case 'AuthenticationFailed':
      return "the store does not accept the account key, or this machine's clock is wrong"
    case 'AuthorizationFailure':
    case 'AuthorizationPermissionMismatch':
      return 'the identity has no right to do this (the role Storage Blob Data Contributor is needed)'
    case 'CredentialUnavailableError':
    case 'AggregateAuthenticationError':
      return 'no Azure identity was found: use a managed identity, or set PORTOLAN_AZURE_ACCOUNT_KEY'
    case 'ENOTFOUND':
    case 'ECONNREFUSED':
      return `${config.endpoint} cannot be reached (${code})`
    default:
      return `the store answered ${code}`
  }
}
