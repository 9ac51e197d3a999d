// Configuration: one table (config-variables.ts), read once, frozen. This is the only place that looks at the environment.
//
// All problems are reported together, and an unknown PORTOLAN_ name
// is one of them: a misspelt variable that is silently ignored is the commonest cause of an outage. Secrets may come
// from a file (`..._FILE`). Where infrastructure is not configured it is embedded, unless PORTOLAN_EMBEDDED=forbid.

import { readFileSync } from 'node:fs'
import { ConfigValueError, isLoopback, type ListenAddress } from './config-parsers.ts'
import { nearest } from './config-spelling.ts'
import { type Variable, type VariableName, variables } from './config-variables.ts'

export type BlobsConfig =
  | { readonly kind: 'file' }
  | {
      readonly kind: 's3'
      readonly bucket: string
      /** undefined: the SDK's chain decides. */
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
      /** undefined: an identity signs in. */
      readonly account: { readonly name: string; readonly key: string } | undefined
      readonly prefix: string
      readonly tier: 'Hot' | 'Cool' | 'Cold' | undefined
    }

export interface KafkaConfig {
  /** host:port of each. */
  readonly brokers: readonly string[]
  readonly topic: string
  /** undefined: as many as there are brokers, up to three. */
  readonly replicas: number | undefined
  readonly tls: boolean
  readonly caFile: string | undefined
  readonly sasl:
    | {
        readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'
        readonly username: string
        readonly password: string
      }
    | undefined
}

export interface Config {
  readonly listen: ListenAddress
  readonly metricsListen: ListenAddress | undefined
  readonly publicUrl: string | undefined
  readonly trustedProxies: readonly string[]
  readonly region: string
  readonly dataDir: string
  readonly database: { readonly url: string | undefined; readonly connections: number }
  /** Where new blobs go. */
  readonly blobs: BlobsConfig
  /** Every store that is configured, that one included: rows may still name the others while a region moves. */
  readonly stores: readonly BlobsConfig[]
  readonly storeTimeoutSeconds: number
  readonly redirect: { readonly on: boolean; readonly bytesMin: number; readonly except: readonly string[] }
  /** undefined: readers use the log. */
  readonly kafka: KafkaConfig | undefined
  /** Secrets that regions share, the one that signs first; undefined: no other region may ask. */
  readonly peerKeys: readonly string[] | undefined
  readonly processes: number
  /** Set by the parent of several API processes: this is one of them and shares the port. */
  readonly child: boolean
  readonly auth: {
    readonly mode: 'none' | 'accounts'
    readonly htpasswdFile: string | undefined
    readonly anonymousPull: boolean
    readonly admins: readonly string[]
    readonly tokenTtlSeconds: number
  }
  readonly registry: {
    readonly sparse: 'none' | 'index' | 'all'
    readonly deletes: boolean
    readonly uploadTtlSeconds: number
    readonly uploadsPerRepositoryMax: number
  }
  readonly webhooks: {
    readonly allowPrivate: boolean
    readonly timeoutSeconds: number
    readonly retrySeconds: number
    readonly giveUpSeconds: number
    readonly keepSeconds: number
  }
  readonly events: {
    readonly retentionSeconds: number
    readonly readerSeconds: number
    /** 0: pulls are no events. */
    readonly pullSeconds: number
    /** Per process. */
    readonly streamsMax: number
    readonly streamsPerAddressMax: number
  }
  readonly janitor: { readonly orphanGraceSeconds: number; readonly sweepSeconds: number }
  readonly bytes: {
    readonly freeMin: number
    readonly cache: number
    readonly readBuffer: number
    readonly writeBuffer: number
    readonly ratePerSecondMin: number
    readonly rateWindowSeconds: number
  }
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error'
  readonly drainSeconds: number
}

export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(
      `The configuration has ${problems.length === 1 ? 'a problem' : 'problems'}:\n  ${problems.join('\n  ')}`,
    )
    this.problems = problems
  }
}

/** Not for operators: how a parent tells its API processes what they are. */
const CHILD = 'PORTOLAN_CHILD'

type Environment = Readonly<Record<string, string | undefined>>

/** @throws ConfigError with every problem there is. */
export function loadConfig(environment: Environment): Config {
  const problems: string[] = unknownNames(environment)
  const read: Read = <Name extends VariableName>(name: Name): Value<Name> => {
    const definition: Variable<unknown> = variables[name]
    try {
      const text = textOf(environment, name, definition) ?? definition.default
      return (text === undefined ? undefined : definition.parse(text)) as Value<Name>
    } catch (thrown) {
      if (!(thrown instanceof ConfigValueError)) throw thrown
      const problem = `${name} ${thrown.message}`
      if (!problems.includes(problem)) problems.push(problem)
      return undefined as Value<Name>
    }
  }
  const auth = read('PORTOLAN_AUTH')
  const embedded = read('PORTOLAN_EMBEDDED')
  const kind = read('PORTOLAN_BLOBS') ?? 'file'
  // Also those of stores that are not in use: a value that cannot be right is told before somebody moves there.
  for (const name of Object.keys(variables) as VariableName[]) if (environment[name] !== undefined) read(name)
  const config: Config = {
    listen: read('PORTOLAN_LISTEN'),
    metricsListen: read('PORTOLAN_METRICS_LISTEN'),
    publicUrl: read('PORTOLAN_PUBLIC_URL'),
    trustedProxies: read('PORTOLAN_TRUSTED_PROXIES'),
    region: read('PORTOLAN_REGION'),
    dataDir: read('PORTOLAN_DATA_DIR'),
    database: { url: read('PORTOLAN_DATABASE_URL'), connections: read('PORTOLAN_DATABASE_CONNECTIONS') },
    blobs: blobsConfig(kind, read, problems),
    stores: storeKinds
      .filter((other) => other === kind || isConfigured(other, environment))
      .map((other) => blobsConfig(other, read, problems)),
    storeTimeoutSeconds: read('PORTOLAN_STORE_TIMEOUT_SECONDS'),
    redirect: {
      on: read('PORTOLAN_REDIRECT') === 'on',
      bytesMin: read('PORTOLAN_REDIRECT_BYTES_MIN'),
      except: read('PORTOLAN_REDIRECT_EXCEPT'),
    },
    kafka: kafkaConfig(read, problems),
    peerKeys: read('PORTOLAN_PEER_KEYS'),
    processes: read('PORTOLAN_PROCESSES'),
    child: environment[CHILD] === 'true',
    auth: {
      mode: auth ?? 'none',
      htpasswdFile: read('PORTOLAN_HTPASSWD_FILE'),
      anonymousPull: read('PORTOLAN_ANONYMOUS_PULL'),
      admins: read('PORTOLAN_ADMINS'),
      tokenTtlSeconds: read('PORTOLAN_TOKEN_TTL_SECONDS'),
    },
    registry: {
      sparse: read('PORTOLAN_SPARSE'),
      deletes: read('PORTOLAN_DELETE'),
      uploadTtlSeconds: read('PORTOLAN_UPLOAD_TTL_SECONDS'),
      uploadsPerRepositoryMax: read('PORTOLAN_UPLOADS_PER_REPOSITORY_MAX'),
    },
    webhooks: {
      allowPrivate:
        read('PORTOLAN_WEBHOOKS_ALLOW_PRIVATE') ??
        ((auth ?? 'none') === 'none' && isLoopback(read('PORTOLAN_LISTEN')?.host ?? '')),
      timeoutSeconds: read('PORTOLAN_WEBHOOK_TIMEOUT_SECONDS'),
      retrySeconds: read('PORTOLAN_WEBHOOK_RETRY_SECONDS'),
      giveUpSeconds: read('PORTOLAN_WEBHOOK_GIVE_UP_SECONDS'),
      keepSeconds: read('PORTOLAN_WEBHOOK_KEEP_SECONDS'),
    },
    events: {
      retentionSeconds: read('PORTOLAN_EVENTS_RETENTION_SECONDS'),
      readerSeconds: read('PORTOLAN_EVENTS_READER_SECONDS'),
      pullSeconds: read('PORTOLAN_EVENTS_PULL_SECONDS'),
      streamsMax: read('PORTOLAN_STREAMS_MAX'),
      streamsPerAddressMax: read('PORTOLAN_STREAMS_PER_ADDRESS_MAX'),
    },
    janitor: {
      orphanGraceSeconds: read('PORTOLAN_ORPHAN_GRACE_SECONDS'),
      sweepSeconds: read('PORTOLAN_SWEEP_SECONDS'),
    },
    bytes: {
      freeMin: read('PORTOLAN_FREE_BYTES_MIN'),
      cache: read('PORTOLAN_CACHE_BYTES'),
      readBuffer: read('PORTOLAN_READ_BUFFER_BYTES'),
      writeBuffer: read('PORTOLAN_WRITE_BUFFER_BYTES'),
      ratePerSecondMin: read('PORTOLAN_RATE_BYTES_PER_SECOND_MIN'),
      rateWindowSeconds: read('PORTOLAN_RATE_WINDOW_SECONDS'),
    },
    logLevel: read('PORTOLAN_LOG_LEVEL'),
    drainSeconds: read('PORTOLAN_DRAIN_SECONDS'),
  }
  if (problems.length === 0) {
    problems.push(
      ...contradictions(config, {
        authSaid: auth !== undefined,
        blobsSaid: read('PORTOLAN_BLOBS') !== undefined,
        kafkaSaid: read('PORTOLAN_KAFKA_BROKERS') !== undefined,
        embedded,
      }),
    )
  }
  if (problems.length > 0) throw new ConfigError(problems)
  return deepFreeze(config)
}

type Read = <Name extends VariableName>(name: Name) => Value<Name>

type StoreKind = BlobsConfig['kind']

const storeKinds = ['file', 's3', 'gcs', 'azure'] as const satisfies readonly StoreKind[]

/** What makes a store usable; files always are. */
const STORE_NAMES: Readonly<Record<StoreKind, VariableName | undefined>> = Object.freeze({
  file: undefined,
  s3: 'PORTOLAN_S3_BUCKET',
  gcs: 'PORTOLAN_GCS_BUCKET',
  azure: 'PORTOLAN_AZURE_CONTAINER',
})

function isConfigured(kind: StoreKind, environment: Environment): boolean {
  const name = STORE_NAMES[kind]
  return name === undefined || (environment[name] ?? '') !== ''
}

function blobsConfig(kind: StoreKind, read: Read, problems: string[]): BlobsConfig {
  const need = <T>(name: VariableName, value: T | undefined): T => {
    const problem = `blobs in ${kind} need ${name}`
    if (value === undefined && !problems.includes(problem)) problems.push(problem)
    return value as T
  }
  switch (kind) {
    case 'file':
      return { kind }
    case 's3':
      return {
        kind,
        bucket: need('PORTOLAN_S3_BUCKET', read('PORTOLAN_S3_BUCKET')),
        region: read('PORTOLAN_S3_REGION'),
        endpoint: read('PORTOLAN_S3_ENDPOINT'),
        pathStyle: read('PORTOLAN_S3_PATH_STYLE'),
        prefix: read('PORTOLAN_S3_PREFIX'),
        storageClass: read('PORTOLAN_S3_STORAGE_CLASS'),
        kmsKeyId: read('PORTOLAN_S3_KMS_KEY_ID'),
      }
    case 'gcs':
      return {
        kind,
        bucket: need('PORTOLAN_GCS_BUCKET', read('PORTOLAN_GCS_BUCKET')),
        endpoint: read('PORTOLAN_GCS_ENDPOINT'),
        prefix: read('PORTOLAN_GCS_PREFIX'),
        storageClass: read('PORTOLAN_GCS_STORAGE_CLASS'),
        kmsKey: read('PORTOLAN_GCS_KMS_KEY'),
      }
    case 'azure': {
      const name = read('PORTOLAN_AZURE_ACCOUNT')
      const key = read('PORTOLAN_AZURE_ACCOUNT_KEY')
      const account = key === undefined ? undefined : { name: need('PORTOLAN_AZURE_ACCOUNT', name), key }
      return {
        kind,
        container: need('PORTOLAN_AZURE_CONTAINER', read('PORTOLAN_AZURE_CONTAINER')),
        endpoint: need('PORTOLAN_AZURE_ENDPOINT', read('PORTOLAN_AZURE_ENDPOINT')),
        account,
        prefix: read('PORTOLAN_AZURE_PREFIX'),
        tier: read('PORTOLAN_AZURE_TIER'),
      }
    }
  }
}

function kafkaConfig(read: Read, problems: string[]): KafkaConfig | undefined {
  const brokers = read('PORTOLAN_KAFKA_BROKERS') ?? []
  const mechanism = read('PORTOLAN_KAFKA_SASL')
  const username = read('PORTOLAN_KAFKA_USERNAME')
  const password = read('PORTOLAN_KAFKA_PASSWORD')
  const tls = read('PORTOLAN_KAFKA_TLS')
  const caFile = read('PORTOLAN_KAFKA_CA_FILE')
  if ((username === undefined) !== (password === undefined))
    problems.push('PORTOLAN_KAFKA_USERNAME and PORTOLAN_KAFKA_PASSWORD go together')
  if (username !== undefined && mechanism === 'plain' && !tls)
    problems.push('PORTOLAN_KAFKA_SASL=plain sends the password: it needs PORTOLAN_KAFKA_TLS=true')
  if (caFile !== undefined && !tls) problems.push('PORTOLAN_KAFKA_CA_FILE needs PORTOLAN_KAFKA_TLS=true')
  if (brokers.length === 0) return undefined
  return {
    brokers,
    topic: read('PORTOLAN_KAFKA_TOPIC') ?? `portolan.${read('PORTOLAN_REGION')}.events`,
    replicas: read('PORTOLAN_KAFKA_REPLICAS'),
    tls,
    caFile,
    sasl: username === undefined || password === undefined ? undefined : { mechanism, username, password },
  }
}

type Value<Name extends VariableName> = (typeof variables)[Name] extends { default: string }
  ? ReturnType<(typeof variables)[Name]['parse']>
  : ReturnType<(typeof variables)[Name]['parse']> | undefined

const SECRET_FILE_BYTES_MAX = 64 * 1024

function textOf(environment: Environment, name: string, definition: Variable<unknown>): string | undefined {
  const text = environment[name]
  const path = definition.secret === true ? environment[`${name}_FILE`] : undefined
  if (path === undefined) return text === '' && definition.default === undefined ? undefined : text
  if (text !== undefined) throw new ConfigValueError(`and ${name}_FILE are both set: choose one`)
  try {
    const content = readFileSync(path, 'utf8')
    if (content.length > SECRET_FILE_BYTES_MAX)
      throw new ConfigValueError(`_FILE names a file that is too large`)
    return content.trim()
  } catch (thrown) {
    if (thrown instanceof ConfigValueError) throw thrown
    throw new ConfigValueError(`_FILE names a file that cannot be read: ${(thrown as Error).message}`)
  }
}

function contradictions(
  config: Config,
  said: { authSaid: boolean; blobsSaid: boolean; kafkaSaid: boolean; embedded: string },
): string[] {
  const problems: string[] = []
  if (!said.authSaid && !isLoopback(config.listen.host)) {
    problems.push(
      'PORTOLAN_LISTEN is reachable from other machines: set PORTOLAN_AUTH=accounts, or PORTOLAN_AUTH=none if everybody who reaches it may push and delete',
    )
  }
  if (config.auth.mode === 'accounts' && config.auth.htpasswdFile === undefined) {
    problems.push('PORTOLAN_AUTH=accounts needs PORTOLAN_HTPASSWD_FILE (make one with `htpasswd -Bc`)')
  }
  if (said.embedded === 'forbid' && config.database.url === undefined) {
    problems.push('PORTOLAN_EMBEDDED=forbid needs PORTOLAN_DATABASE_URL')
  }
  if (said.embedded === 'forbid' && !said.blobsSaid) {
    problems.push('PORTOLAN_EMBEDDED=forbid needs PORTOLAN_BLOBS: say where blobs are, even if it is `file`')
  }
  if (said.embedded === 'forbid' && !said.kafkaSaid) {
    problems.push(
      'PORTOLAN_EMBEDDED=forbid needs PORTOLAN_KAFKA_BROKERS: `none` says that readers use the log in the database',
    )
  }
  if (config.redirect.on && config.blobs.kind === 'file') {
    problems.push('PORTOLAN_REDIRECT=on needs an object store: files are served from here')
  }
  return problems
}

function unknownNames(environment: Environment): string[] {
  const known = new Set<string>([CHILD, ...Object.keys(variables)])
  for (const [name, { secret }] of Object.entries<Variable<unknown>>(variables))
    if (secret) known.add(`${name}_FILE`)
  return Object.keys(environment)
    .filter((name) => name.startsWith('PORTOLAN_') && !name.startsWith('PORTOLAN_CI_') && !known.has(name))
    .map((name) => `${name} is unknown; the nearest name is ${nearest(name, [...known])}`)
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) if (typeof inner === 'object' && inner !== null) deepFreeze(inner)
  return Object.freeze(value)
}
