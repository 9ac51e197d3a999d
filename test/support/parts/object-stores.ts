// Real object stores for tests: MinIO, versitygw, fake-gcs-server, Azurite. Each has its own port and directory. A
// started server is stopped by its PID. If a server is not built, tests skip with a visible line; under CI that is an
// error.

import { spawn } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { eventually } from '../eventually.ts'
import { freePort } from '../portolan-process.ts'
import { findAzurite, findTool } from './tools.ts'

export interface ObjectStoreServer extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly pid: number
  /** The Portolan settings for this store, credentials included. */
  readonly env: Readonly<Record<string, string>>
  kill(signal: NodeJS.Signals): void
  /** Restarts the server after a kill, on the same port and data. */
  restart(): Promise<void>
}

const ACCESS = { key: 'portolan-test', secret: 'portolan-test-secret' }
/** Azurite's well-known account (learn.microsoft.com/azure/storage/common/storage-use-azurite). */
const AZURITE_ACCOUNT = 'devstoreaccount1'
const AZURITE_KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='

interface Recipe {
  /** The program and its first arguments, or undefined if it is not available here. */
  find(): readonly string[] | undefined
  args(at: { port: number; directory: string }): readonly string[]
  env?: Readonly<Record<string, string>>
  answers(url: string): Promise<boolean>
  /** Creates the bucket. */
  prepare(url: string): Promise<void>
  configuration(url: string): Record<string, string>
}

const answered = (url: string) =>
  fetch(url).then(
    () => true,
    () => false,
  )

const s3Configuration = (url: string) => ({
  PORTOLAN_BLOBS: 's3',
  PORTOLAN_S3_BUCKET: 'images',
  PORTOLAN_S3_REGION: 'us-east-1',
  PORTOLAN_S3_ENDPOINT: url,
  PORTOLAN_S3_PATH_STYLE: 'true',
  PORTOLAN_S3_PREFIX: 'eu',
  AWS_ACCESS_KEY_ID: ACCESS.key,
  AWS_SECRET_ACCESS_KEY: ACCESS.secret,
})

async function makeS3Bucket(url: string): Promise<void> {
  const { CreateBucketCommand, S3Client } = await import('@aws-sdk/client-s3')
  const client = new S3Client({
    region: 'us-east-1',
    endpoint: url,
    forcePathStyle: true,
    credentials: { accessKeyId: ACCESS.key, secretAccessKey: ACCESS.secret },
  })
  await client.send(new CreateBucketCommand({ Bucket: 'images' }))
  client.destroy()
}

export const recipes = {
  minio: {
    find: () => asList(findTool('minio')),
    args: ({ port, directory }) => ['server', '--quiet', '--address', `127.0.0.1:${port}`, directory],
    env: {
      MINIO_ROOT_USER: ACCESS.key,
      MINIO_ROOT_PASSWORD: ACCESS.secret,
      MINIO_REGION: 'us-east-1',
      MINIO_BROWSER: 'off',
      MINIO_UPDATE: 'off',
      CI: 'true',
      MINIO_CI_CD: '1',
      MINIO_KMS_SECRET_KEY: `portolan-key:${Buffer.alloc(32, 7).toString('base64')}`,
    },
    answers: (url) =>
      fetch(`${url}/minio/health/ready`).then(
        ({ ok }) => ok,
        () => false,
      ),
    prepare: makeS3Bucket,
    configuration: s3Configuration,
  },
  versitygw: {
    find: () => asList(findTool('versitygw')),
    args: ({ port, directory }) => [
      ...['--port', `127.0.0.1:${port}`, '--region', 'us-east-1', '--keep-alive', '--quiet'],
      ...['--health', '/health', '--iam-dir', `${directory}.iam`, 'posix', directory],
    ],
    env: { ROOT_ACCESS_KEY: ACCESS.key, ROOT_SECRET_KEY: ACCESS.secret },
    answers: (url) => answered(`${url}/health`),
    prepare: makeS3Bucket,
    configuration: s3Configuration,
  },
  gcs: {
    find: () => asList(findTool('fake-gcs-server')),
    args: ({ port }) => [
      ...['-scheme', 'http', '-host', '127.0.0.1', '-port', String(port), '-backend', 'memory'],
      ...[
        '-external-url',
        `http://127.0.0.1:${port}`,
        '-public-host',
        `127.0.0.1:${port}`,
        '-log-level',
        'error',
      ],
    ],
    answers: (url) => answered(`${url}/storage/v1/b`),
    async prepare(url) {
      await fetch(`${url}/storage/v1/b?project=portolan`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ name: 'images' }),
      })
    },
    configuration: (url) => ({
      PORTOLAN_BLOBS: 'gcs',
      PORTOLAN_GCS_BUCKET: 'images',
      PORTOLAN_GCS_ENDPOINT: url,
      PORTOLAN_GCS_PREFIX: 'eu',
    }),
  },
  azurite: {
    find() {
      const entry = findAzurite()
      return entry === undefined ? undefined : [process.execPath, entry]
    },
    args: ({ port, directory }) => [
      ...['--blobHost', '127.0.0.1', '--blobPort', String(port), '--location', directory],
      ...['--silent', '--disableTelemetry', '--skipApiVersionCheck'],
    ],
    answers: answered,
    async prepare(url) {
      const date = new Date().toUTCString()
      const path = `/${AZURITE_ACCOUNT}/${AZURITE_ACCOUNT}/images`
      const text = `PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:${date}\nx-ms-version:2021-08-06\n${path}\nrestype:container`
      const signature = createHmac('sha256', Buffer.from(AZURITE_KEY, 'base64')).update(text).digest('base64')
      const answer = await fetch(`${url}/${AZURITE_ACCOUNT}/images?restype=container`, {
        method: 'PUT',
        headers: {
          'x-ms-date': date,
          'x-ms-version': '2021-08-06',
          Authorization: `SharedKey ${AZURITE_ACCOUNT}:${signature}`,
        },
      })
      if (!answer.ok)
        throw new Error(`Azurite did not create the container: ${answer.status} ${await answer.text()}`)
    },
    configuration: (url) => ({
      PORTOLAN_BLOBS: 'azure',
      PORTOLAN_AZURE_CONTAINER: 'images',
      PORTOLAN_AZURE_ENDPOINT: `${url}/${AZURITE_ACCOUNT}`,
      PORTOLAN_AZURE_ACCOUNT: AZURITE_ACCOUNT,
      PORTOLAN_AZURE_ACCOUNT_KEY: AZURITE_KEY,
      PORTOLAN_AZURE_PREFIX: 'eu',
    }),
  },
} satisfies Record<string, Recipe>

export type ObjectStoreName = keyof typeof recipes

function asList(path: string | undefined): readonly string[] | undefined {
  return path === undefined ? undefined : [path]
}

/** For a test's `skip`: false, or a line that names what is missing. */
export function withoutStore(name: ObjectStoreName): string | false {
  return recipes[name].find() === undefined && `${name} is not built (.ci/install builds it)`
}

export async function startObjectStore(name: ObjectStoreName): Promise<ObjectStoreServer> {
  const recipe: Recipe = recipes[name]
  const [program = '', ...first] = recipe.find() ?? []
  const directory = await mkdtemp(join(tmpdir(), `portolan-${name}-`))
  await mkdir(`${directory}.iam`, { recursive: true })
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const spawned = () =>
    spawn(program, [...first, ...recipe.args({ port, directory })], {
      env: { PATH: process.env.PATH, HOME: directory, ...recipe.env },
      stdio: ['ignore', 'ignore', 'inherit'],
    })
  let child = spawned()
  const up = () => eventually(`${name} to answer`, () => recipe.answers(url), 30_000)
  await up()
  await recipe.prepare(url)
  const ended = () =>
    new Promise<void>((done) => {
      if (child.exitCode !== null || child.signalCode !== null) done()
      else child.once('exit', () => done())
    })
  return {
    url,
    port,
    get pid() {
      return child.pid ?? 0
    },
    env: recipe.configuration(url),
    kill: (signal) => child.kill(signal),
    async restart() {
      await ended()
      child = spawned()
      await up()
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await ended()
      await rm(directory, { recursive: true, force: true })
      await rm(`${directory}.iam`, { recursive: true, force: true })
    },
  }
}
