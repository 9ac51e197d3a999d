// Settings of blob stores: files, S3 and compatible servers, Google Cloud Storage, Azure Blob Storage. Several stores
// may be configured at the same time: each row names the store of its blob while a region moves from one store to
// another.

import { addressRanges, bytes, flag, integer, objectPrefix, oneOf, plain, serviceUrl } from './parsers.ts'
import type { serverVariables } from './server.ts'
import { GIB, KIB, optional, type Parsed, secret, type Values, variable } from './variable.ts'

export const blobVariables = Object.freeze({
  PORTOLAN_BLOBS: optional(
    oneOf('file', 's3', 'gcs', 'azure'),
    'Where blobs are stored: `file`, `s3`, `gcs` or `azure`. If unset, they are files under the data directory. ' +
      'Every node of the region must be able to reach an object store.',
  ),
  PORTOLAN_INLINE_BYTES_MAX: variable(
    bytes({ min: 0, max: 256 * KIB }),
    '16KiB',
    'Blobs up to this size, such as image configs and signatures, are stored in the database. Each costs one commit ' +
      'and no request to the store. `0` stores none there.',
  ),
  PORTOLAN_S3_BUCKET: optional(
    plain,
    'The bucket. Credentials come from the usual AWS chain (`AWS_*`, profiles, roles).',
  ),
  PORTOLAN_S3_REGION: optional(
    plain,
    "The bucket's AWS region. If unset, `AWS_REGION` or the profile is used.",
  ),
  PORTOLAN_S3_ENDPOINT: optional(
    serviceUrl,
    'URL of an S3-compatible server (MinIO, Ceph, versitygw). If unset, Amazon S3 is used.',
  ),
  PORTOLAN_S3_PATH_STYLE: variable(
    flag,
    'false',
    '`true` puts the bucket into the path instead of the host name. Most self-hosted servers need it.',
  ),
  PORTOLAN_S3_PREFIX: variable(objectPrefix, '', 'Prefix of every key, so that a bucket can be shared.'),
  PORTOLAN_S3_STORAGE_CLASS: optional(
    plain,
    'Storage class of new objects, such as `INTELLIGENT_TIERING`. Blobs in archive classes cannot be pulled.',
  ),
  PORTOLAN_S3_KMS_KEY_ID: optional(
    plain,
    "Encrypt new objects with this KMS key (SSE-KMS). If unset, the bucket's default applies.",
  ),
  PORTOLAN_GCS_BUCKET: optional(
    plain,
    'The bucket. Credentials are Application Default Credentials (workload identity, ' +
      '`GOOGLE_APPLICATION_CREDENTIALS`).',
  ),
  PORTOLAN_GCS_ENDPOINT: optional(
    serviceUrl,
    'URL of another server with the same API, used without authentication. For tests.',
  ),
  PORTOLAN_GCS_PREFIX: variable(objectPrefix, '', 'Prefix of every key, so that a bucket can be shared.'),
  PORTOLAN_GCS_STORAGE_CLASS: optional(
    plain,
    'Storage class of new objects, such as `NEARLINE`. Reads from colder classes cost more.',
  ),
  PORTOLAN_GCS_KMS_KEY: optional(plain, 'Encrypt new objects with this Cloud KMS key (full resource name).'),
  PORTOLAN_AZURE_CONTAINER: optional(plain, 'The blob container.'),
  PORTOLAN_AZURE_ENDPOINT: optional(
    serviceUrl,
    'URL of the account, such as `https://name.blob.core.windows.net`. Portolan signs in with a managed identity or ' +
      'another credential of the Azure chain, unless an account key is set.',
  ),
  PORTOLAN_AZURE_ACCOUNT: optional(plain, 'Name of the storage account. Required with an account key.'),
  PORTOLAN_AZURE_ACCOUNT_KEY: secret(plain, 'Account key, if no identity is available.'),
  PORTOLAN_AZURE_PREFIX: variable(
    objectPrefix,
    '',
    'Prefix of every key, so that a container can be shared.',
  ),
  PORTOLAN_AZURE_TIER: optional(
    oneOf('Hot', 'Cool', 'Cold'),
    'Access tier of new blobs. Colder tiers cost less to store and more to read.',
  ),
  PORTOLAN_STORE_TIMEOUT_SECONDS: variable(
    integer({ min: 1, max: 600 }),
    '45',
    'How long a request to the object store is retried, and how long its body may take, before the client gets 503.',
  ),
  PORTOLAN_REDIRECT: variable(
    oneOf('off', 'on', 'accel'),
    'off',
    '`on` redirects blob pulls to the object store, with a link that is valid for 20 minutes. Clients must be ' +
      'able to reach the store. With `accel`, nginx in front sends the bytes (X-Accel-Redirect), from files or from ' +
      'the object store.',
  ),
  PORTOLAN_REDIRECT_BYTES_MIN: variable(
    bytes({ min: 0, max: 64 * GIB }),
    '1MiB',
    'Smaller blobs are not redirected, because the second request would cost more than it saves.',
  ),
  PORTOLAN_REDIRECT_EXCEPT: variable(
    addressRanges,
    '',
    'Address ranges of clients that cannot reach the store. Portolan serves them itself.',
  ),
})

export type BlobsConfig =
  | { readonly kind: 'file' }
  | {
      readonly kind: 's3'
      readonly bucket: string
      /** undefined: the SDK's default chain chooses it. */
      readonly region: string | undefined
      readonly endpoint: string | undefined
      readonly pathStyle: boolean
      readonly prefix: string
      readonly storageClass: string | undefined
      readonly kmsKeyId: string | undefined
    }
  | {
      readonly kind: 'gcs'
      readonly bucket: string
      readonly endpoint: string | undefined
      readonly prefix: string
      readonly storageClass: string | undefined
      readonly kmsKey: string | undefined
    }
  | {
      readonly kind: 'azure'
      readonly container: string
      readonly endpoint: string
      /** undefined: sign in with an identity. */
      readonly account: { readonly name: string; readonly key: string } | undefined
      readonly prefix: string
      readonly tier: 'Hot' | 'Cool' | 'Cold' | undefined
    }

export interface StoresConfig {
  /** The store for new blobs. */
  readonly blobs: BlobsConfig
  /** Every configured store, including `blobs`. */
  readonly stores: readonly BlobsConfig[]
  /** Blobs up to this size are stored in the database. 0: none. */
  readonly inlineBytesMax: number
  readonly storeTimeoutSeconds: number
  readonly redirect: {
    /** What sends the bytes instead of this process: the store (link) or nginx (proxy); undefined: nothing. */
    readonly by: 'link' | 'proxy' | undefined
    readonly bytesMin: number
    readonly except: readonly string[]
  }
}

type StoreKind = BlobsConfig['kind']
type BlobVariable = keyof typeof blobVariables

const storeKinds = ['file', 's3', 'gcs', 'azure'] as const satisfies readonly StoreKind[]

/** The variables that a store requires. The store counts as configured if the first one is set. Files need none. */
const NEEDED: Readonly<Record<StoreKind, readonly BlobVariable[]>> = Object.freeze({
  file: [],
  s3: ['PORTOLAN_S3_BUCKET'],
  gcs: ['PORTOLAN_GCS_BUCKET'],
  azure: ['PORTOLAN_AZURE_CONTAINER', 'PORTOLAN_AZURE_ENDPOINT'],
})

export function storesConfig(values: Values<typeof blobVariables>): StoresConfig {
  const kind = values.PORTOLAN_BLOBS ?? 'file'
  return {
    blobs: storeConfig(kind, values),
    stores: storeKinds
      .filter((other) => other === kind || isConfigured(other, (name) => values[name] !== undefined))
      .map((other) => storeConfig(other, values)),
    inlineBytesMax: values.PORTOLAN_INLINE_BYTES_MAX,
    storeTimeoutSeconds: values.PORTOLAN_STORE_TIMEOUT_SECONDS,
    redirect: {
      by: ({ off: undefined, on: 'link', accel: 'proxy' } as const)[values.PORTOLAN_REDIRECT],
      bytesMin: values.PORTOLAN_REDIRECT_BYTES_MIN,
      except: values.PORTOLAN_REDIRECT_EXCEPT,
    },
  }
}

function isConfigured(kind: StoreKind, isSet: (name: BlobVariable) => boolean): boolean {
  const [first] = NEEDED[kind]
  return first === undefined || isSet(first)
}

function storeConfig(kind: StoreKind, values: Values<typeof blobVariables>): BlobsConfig {
  switch (kind) {
    case 'file':
      return { kind }
    case 's3':
      return {
        kind,
        bucket: values.PORTOLAN_S3_BUCKET ?? '',
        region: values.PORTOLAN_S3_REGION,
        endpoint: values.PORTOLAN_S3_ENDPOINT,
        pathStyle: values.PORTOLAN_S3_PATH_STYLE,
        prefix: values.PORTOLAN_S3_PREFIX,
        storageClass: values.PORTOLAN_S3_STORAGE_CLASS,
        kmsKeyId: values.PORTOLAN_S3_KMS_KEY_ID,
      }
    case 'gcs':
      return {
        kind,
        bucket: values.PORTOLAN_GCS_BUCKET ?? '',
        endpoint: values.PORTOLAN_GCS_ENDPOINT,
        prefix: values.PORTOLAN_GCS_PREFIX,
        storageClass: values.PORTOLAN_GCS_STORAGE_CLASS,
        kmsKey: values.PORTOLAN_GCS_KMS_KEY,
      }
    case 'azure': {
      const { PORTOLAN_AZURE_ACCOUNT: name, PORTOLAN_AZURE_ACCOUNT_KEY: key } = values
      return {
        kind,
        container: values.PORTOLAN_AZURE_CONTAINER ?? '',
        endpoint: values.PORTOLAN_AZURE_ENDPOINT ?? '',
        account: name === undefined || key === undefined ? undefined : { name, key },
        prefix: values.PORTOLAN_AZURE_PREFIX,
        tier: values.PORTOLAN_AZURE_TIER,
      }
    }
  }
}

export function blobProblems(
  values: Parsed<typeof blobVariables & Pick<typeof serverVariables, 'PORTOLAN_TRUSTED_PROXIES'>>,
  isSet: (name: BlobVariable) => boolean,
): string[] {
  const kind = values.PORTOLAN_BLOBS ?? 'file'
  const problems: string[] = []
  for (const store of storeKinds.filter((other) => other === kind || isConfigured(other, isSet))) {
    const withKey = store === 'azure' && isSet('PORTOLAN_AZURE_ACCOUNT_KEY')
    const needed = withKey ? (['PORTOLAN_AZURE_ACCOUNT', ...NEEDED[store]] as const) : NEEDED[store]
    for (const name of needed) if (!isSet(name)) problems.push(`blobs in ${store} need ${name}`)
  }
  if (values.PORTOLAN_REDIRECT === 'on' && kind === 'file')
    problems.push('PORTOLAN_REDIRECT=on needs an object store: blobs in files cannot be redirected')
  if (values.PORTOLAN_REDIRECT === 'accel') problems.push(...accelProblems(values.PORTOLAN_TRUSTED_PROXIES))
  return problems
}

/** An internal path grants a pull, so only nginx may receive it. */
function accelProblems(trusted: readonly string[] | undefined): string[] {
  if (trusted === undefined) return []
  if (trusted.length === 0)
    return ["PORTOLAN_REDIRECT=accel needs nginx's address in PORTOLAN_TRUSTED_PROXIES"]
  const everybody = trusted.filter((range) => range.endsWith('/0'))
  return everybody.map(
    (range) =>
      `PORTOLAN_REDIRECT=accel with PORTOLAN_TRUSTED_PROXIES=${range} would reveal internal paths to every client: ` +
      "list only nginx's address",
  )
}
