// The configuration table: each variable with its parser, default and one sentence that says what it trades for what.
// README.md and .env.example are compared with it by test/tidy.test.ts; config.ts reads the environment by it.

import {
  addressRanges,
  brokers,
  bytes,
  databaseUrl,
  flag,
  integer,
  listenAddress,
  objectPrefix,
  oneOf,
  orOff,
  peerKeys,
  plain,
  publicUrl,
  regionName,
  serviceUrl,
  topicName,
  words,
} from './config-parsers.ts'

export interface Variable<T> {
  readonly parse: (text: string) => T
  /** As one would write it in the environment; undefined: unset has a meaning of its own. */
  readonly default?: string
  readonly meaning: string
  readonly secret?: true
}

const variable = <T>(
  parse: (text: string) => T,
  fallback: string,
  meaning: string,
): Variable<T> & { default: string } => Object.freeze({ parse, default: fallback, meaning })
const optional = <T>(parse: (text: string) => T, meaning: string): Variable<T> =>
  Object.freeze({ parse, meaning })

const secret = <T>(parse: (text: string) => T, meaning: string): Variable<T> & { secret: true } =>
  Object.freeze({ parse, meaning, secret: true as const })

const MIB = 2 ** 20
const GIB = 2 ** 30
const DAY_SECONDS = 86_400

export const variables = Object.freeze({
  PORTOLAN_LISTEN: variable(
    listenAddress,
    'localhost:5000',
    'Address of the registry; `localhost` is both loopback families, `:5000` is every interface and then PORTOLAN_AUTH must be set.',
  ),
  PORTOLAN_METRICS_LISTEN: variable(
    orOff(listenAddress),
    'localhost:5001',
    'Address of `/metrics`, `/livez` and `/readyz`, or `off`; keep it away from clients, it tells what the registry does.',
  ),
  PORTOLAN_PUBLIC_URL: optional(
    publicUrl,
    'What clients call the registry, for the token realm; unset, the Host header (or a trusted proxy) decides, which is right unless a proxy rewrites it.',
  ),
  PORTOLAN_TRUSTED_PROXIES: variable(
    addressRanges,
    '',
    'Address ranges whose Forwarded and X-Forwarded-* headers count; anyone else could forge them, so the default is nobody.',
  ),
  PORTOLAN_REGION: variable(
    regionName,
    'eu',
    'Name of this region; it is in every version written, so it never changes for a database.',
  ),
  PORTOLAN_DATA_DIR: variable(
    plain,
    '.portolan',
    'Directory of what is embedded (Postgres) and of blobs; each region has a folder in it.',
  ),
  PORTOLAN_DATABASE_URL: secret(
    databaseUrl,
    'Postgres 15 to 18 of this region, by a direct connection or a session pooler; unset, an embedded Postgres runs in the data directory.',
  ),
  PORTOLAN_DATABASE_CONNECTIONS: variable(
    integer({ min: 2, max: 100 }),
    '8',
    'Connections each process keeps for writes; more than the database has cores mostly adds waiting.',
  ),
  PORTOLAN_EMBEDDED: variable(
    oneOf('allow', 'forbid'),
    'allow',
    '`forbid` makes a missing PORTOLAN_DATABASE_URL, PORTOLAN_BLOBS or PORTOLAN_KAFKA_BROKERS an error instead of choosing what needs nothing else: set it in production.',
  ),
  PORTOLAN_BLOBS: optional(
    oneOf('file', 's3', 'gcs', 'azure'),
    'Where blobs are: files under the data directory (the default), or an object store, which every node of the region reaches.',
  ),
  PORTOLAN_S3_BUCKET: optional(
    plain,
    'The bucket; credentials come from the usual AWS chain (`AWS_*`, profiles, roles).',
  ),
  PORTOLAN_S3_REGION: optional(plain, "The bucket's AWS region; unset, `AWS_REGION` or the profile says."),
  PORTOLAN_S3_ENDPOINT: optional(
    serviceUrl,
    'URL of an S3 server of your own (MinIO, Ceph, versitygw); unset, Amazon.',
  ),
  PORTOLAN_S3_PATH_STYLE: variable(
    flag,
    'false',
    "`true` puts the bucket into the path instead of the host name; most servers of one's own need it.",
  ),
  PORTOLAN_S3_PREFIX: variable(objectPrefix, '', 'Put before every key; a bucket can then be shared.'),
  PORTOLAN_S3_STORAGE_CLASS: optional(
    plain,
    'Storage class of new objects, such as `INTELLIGENT_TIERING`; archive classes cannot be pulled from.',
  ),
  PORTOLAN_S3_KMS_KEY_ID: optional(
    plain,
    'Encrypt with this KMS key (SSE-KMS); unset, as the bucket does by default.',
  ),
  PORTOLAN_GCS_BUCKET: optional(
    plain,
    'The bucket; credentials are Application Default Credentials (workload identity, `GOOGLE_APPLICATION_CREDENTIALS`).',
  ),
  PORTOLAN_GCS_ENDPOINT: optional(
    serviceUrl,
    'URL of another server that speaks the API, without authentication; for tests.',
  ),
  PORTOLAN_GCS_PREFIX: variable(objectPrefix, '', 'Put before every key; a bucket can then be shared.'),
  PORTOLAN_GCS_STORAGE_CLASS: optional(
    plain,
    'Storage class of new objects, such as `NEARLINE`; reads of colder ones cost more.',
  ),
  PORTOLAN_GCS_KMS_KEY: optional(plain, 'Encrypt with this Cloud KMS key (its full resource name).'),
  PORTOLAN_AZURE_CONTAINER: optional(plain, 'The blob container.'),
  PORTOLAN_AZURE_ENDPOINT: optional(
    serviceUrl,
    'URL of the account, such as `https://name.blob.core.windows.net`; managed identity and the rest of the usual Azure chain sign in unless an account key is given.',
  ),
  PORTOLAN_AZURE_ACCOUNT: optional(plain, 'Name of the storage account; needed with an account key.'),
  PORTOLAN_AZURE_ACCOUNT_KEY: secret(plain, 'Account key, where no identity can be had.'),
  PORTOLAN_AZURE_PREFIX: variable(objectPrefix, '', 'Put before every key; a container can then be shared.'),
  PORTOLAN_AZURE_TIER: optional(
    oneOf('Hot', 'Cool', 'Cold'),
    'Access tier of new blobs; colder ones cost less to keep and more to read.',
  ),
  PORTOLAN_STORE_TIMEOUT_SECONDS: variable(
    integer({ min: 1, max: 600 }),
    '45',
    'How long a request to an object store is repeated, and a body of it waited for, before the client is answered 503.',
  ),
  PORTOLAN_REDIRECT: variable(
    oneOf('off', 'on'),
    'off',
    '`on` sends pulls of blobs to the object store by a link that is good for 20 minutes; the bytes no longer pass here, and clients must reach the store.',
  ),
  PORTOLAN_REDIRECT_BYTES_MIN: variable(
    bytes({ min: 0, max: 64 * GIB }),
    '1MiB',
    'Blobs smaller than this are served from here: a second request would cost more than it saves.',
  ),
  PORTOLAN_REDIRECT_EXCEPT: variable(
    addressRanges,
    '',
    'Address ranges of clients that cannot reach the store and never get a link.',
  ),
  PORTOLAN_KAFKA_BROKERS: optional(
    brokers,
    "Comma-separated `host:port` of this region's Kafka, to which every event goes; unset or `none`, readers use the log in the database.",
  ),
  PORTOLAN_KAFKA_TOPIC: optional(
    topicName,
    "Topic of this region's events; unset, `portolan.<region>.events`. It holds no other region's.",
  ),
  PORTOLAN_KAFKA_REPLICAS: optional(
    integer({ min: 1, max: 9 }),
    'Replicas of a topic that is made; unset, one on each broker up to three. With three or more, two must hold an event.',
  ),
  PORTOLAN_KAFKA_TLS: variable(flag, 'false', '`true` speaks TLS to the brokers.'),
  PORTOLAN_KAFKA_CA_FILE: optional(
    plain,
    "File of the authority that signed the brokers' certificates; unset, the system's.",
  ),
  PORTOLAN_KAFKA_SASL: variable(
    oneOf('scram-sha-512', 'scram-sha-256', 'plain'),
    'scram-sha-512',
    'How to sign in where PORTOLAN_KAFKA_USERNAME is set; `plain` sends the password and wants TLS.',
  ),
  PORTOLAN_KAFKA_USERNAME: optional(plain, 'Account on the brokers; unset, none is needed.'),
  PORTOLAN_KAFKA_PASSWORD: secret(plain, 'Its password.'),
  PORTOLAN_PEER_KEYS: secret(
    peerKeys,
    'Keys that all regions share, between commas: the first signs requests to other regions, each is accepted, so keys can be exchanged one after the other. Unset, no other region may read the log.',
  ),
  PORTOLAN_PROCESSES: variable(
    integer({ min: 1, max: 64 }),
    '1',
    'API processes on the one port, where the system can share it (Linux); one per core serves more, each with caches of its own.',
  ),
  PORTOLAN_AUTH: optional(
    oneOf('none', 'accounts'),
    '`none` lets everybody do everything, `accounts` asks for a name in PORTOLAN_HTPASSWD_FILE; unset is `none` on loopback and an error elsewhere.',
  ),
  PORTOLAN_HTPASSWD_FILE: optional(
    plain,
    'File of accounts as `htpasswd -B` writes it; changes are taken up within a second.',
  ),
  PORTOLAN_ANONYMOUS_PULL: variable(
    flag,
    'false',
    'With accounts, `true` lets everybody pull everything and list the catalog; pushing still needs an account.',
  ),
  PORTOLAN_ADMINS: variable(words, '', 'Comma-separated accounts that may use `/api/v1`.'),
  PORTOLAN_TOKEN_TTL_SECONDS: variable(
    integer({ min: 60, max: 3600 }),
    '300',
    'Life of an access token; shorter revokes sooner, longer asks for fewer tokens.',
  ),
  PORTOLAN_SPARSE: variable(
    oneOf('none', 'index', 'all'),
    'none',
    'What a manifest may refer to without having it: nothing, an index its children, or an image its blobs too; mirrors of parts need it, everyone else is safer without.',
  ),
  PORTOLAN_DELETE: variable(
    flag,
    'true',
    '`false` answers every delete of tags, manifests and blobs with 405.',
  ),
  PORTOLAN_UPLOAD_TTL_SECONDS: variable(
    integer({ min: 60, max: 30 * DAY_SECONDS }),
    '604800',
    'How long an upload may rest before its bytes are dropped.',
  ),
  PORTOLAN_UPLOADS_PER_REPOSITORY_MAX: variable(
    integer({ min: 1, max: 100_000 }),
    '1000',
    'Open uploads in one repository; more are answered 429.',
  ),
  PORTOLAN_ORPHAN_GRACE_SECONDS: variable(
    integer({ min: 1, max: 90 * DAY_SECONDS }),
    '172800',
    'Age at which bytes that no row names are removed; must be longer than any upload takes.',
  ),
  PORTOLAN_SWEEP_SECONDS: variable(
    integer({ min: 1, max: DAY_SECONDS }),
    '300',
    'How often the janitor looks for expired uploads and orphans.',
  ),
  PORTOLAN_EVENTS_RETENTION_SECONDS: variable(
    integer({ min: 60, max: 400 * DAY_SECONDS }),
    '604800',
    'How long events are kept, in the log and in Kafka; who comes later is told where the log begins.',
  ),
  PORTOLAN_EVENTS_PULL_SECONDS: variable(
    integer({ min: 0, max: 3600 }),
    '0',
    'Pulls become events too, counted by manifest and tag and written this often, up to 1,000 images a time; `0` is not at all.',
  ),
  PORTOLAN_EVENTS_READER_SECONDS: variable(
    integer({ min: 60, max: 400 * DAY_SECONDS }),
    '2592000',
    'How long events that are older than that wait for a reader that was not heard of: Kafka, webhooks, another region.',
  ),
  PORTOLAN_WEBHOOKS_ALLOW_PRIVATE: optional(
    flag,
    'Whether admins may let a webhook reach private and loopback addresses; unset, only where nobody is asked who they are on loopback.',
  ),
  PORTOLAN_WEBHOOK_TIMEOUT_SECONDS: variable(
    integer({ min: 1, max: 120 }),
    '10',
    'How long a receiver may take to answer; a slow one delays only itself.',
  ),
  PORTOLAN_WEBHOOK_RETRY_SECONDS: variable(
    integer({ min: 1, max: 900 }),
    '5',
    'The wait before a failed delivery is tried again; it doubles each time, up to 15 minutes.',
  ),
  PORTOLAN_WEBHOOK_GIVE_UP_SECONDS: variable(
    integer({ min: 1, max: 30 * DAY_SECONDS }),
    '86400',
    'How long a delivery is tried before it is parked, for somebody to send it again.',
  ),
  PORTOLAN_WEBHOOK_KEEP_SECONDS: variable(
    integer({ min: 60, max: 400 * DAY_SECONDS }),
    '604800',
    'How long deliveries that were made or parked are listed.',
  ),
  PORTOLAN_FREE_BYTES_MIN: variable(
    bytes({ min: 0, max: 2 ** 50 }),
    '256MiB',
    'Free space under which uploads are answered 503 while pulls go on.',
  ),
  PORTOLAN_CACHE_BYTES: variable(
    bytes({ min: MIB, max: 64 * GIB }),
    '128MiB',
    'Memory of each process for manifests and small blobs; more keeps more pulls away from the disk.',
  ),
  PORTOLAN_READ_BUFFER_BYTES: variable(
    bytes({ min: 2 * MIB, max: 4 * GIB }),
    '64MiB',
    'Memory of each process for blobs on their way to clients, however many clients there are.',
  ),
  PORTOLAN_WRITE_BUFFER_BYTES: variable(
    bytes({ min: 8 * MIB, max: 64 * GIB }),
    '256MiB',
    'Memory of each process for uploads on their way to an object store, 5 MiB for each at a time; further uploads wait.',
  ),
  PORTOLAN_RATE_BYTES_PER_SECOND_MIN: variable(
    bytes({ min: 0, max: GIB }),
    '1KiB',
    'A client that stays slower than this for a whole window is cut off, up or down; 0 never cuts.',
  ),
  PORTOLAN_RATE_WINDOW_SECONDS: variable(
    integer({ min: 1, max: 3600 }),
    '60',
    'The window of the minimum rate: a pause of this length is allowed.',
  ),
  PORTOLAN_STREAMS_MAX: variable(
    integer({ min: 1, max: 100_000 }),
    '2000',
    'Event streams and long polls open in each process; more are answered 429. Each may hold 1 MiB for a slow reader.',
  ),
  PORTOLAN_STREAMS_PER_ADDRESS_MAX: variable(
    integer({ min: 1, max: 100_000 }),
    '500',
    'Of them, for one client address (IPv6: one /64); more are answered 429.',
  ),
  PORTOLAN_LOG_LEVEL: variable(
    oneOf('debug', 'info', 'warn', 'error'),
    'info',
    '`info` has a line per request, `warn` only trouble.',
  ),
  PORTOLAN_DRAIN_SECONDS: variable(
    integer({ min: 0, max: 3600 }),
    '30',
    'How long a stopping process lets requests under way finish.',
  ),
} satisfies Record<string, Variable<unknown>>)

export type VariableName = keyof typeof variables
