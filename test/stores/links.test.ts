// Links to the object store: their signature equals the SDK's, they stay the same for a while, real stores accept them,
// and only permitted clients get them.
// tests: shared/blobs/objects/s3-presign.ts

import assert from 'node:assert/strict'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { createS3GetSigner, createS3Signer } from '#shared/blobs/objects/s3-presign.ts'
import { sha256 } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'
import { type ObjectStoreName, startObjectStore, withoutStore } from '../support/parts/object-stores.ts'
import { storeNode, testDirectory } from '../support/region.ts'

const MIB = 1024 * 1024

test('the signature equals that of the SDK for every kind of endpoint and credentials', async () => {
  const nowMs = Date.UTC(2026, 10, 24, 8, 50)
  for (const endpoint of [undefined, 'http://minio.example:9000', 'https://s3.example.com:8443'] as const) {
    for (const pathStyle of [false, true]) {
      for (const sessionToken of [undefined, 'token/with+signs==']) {
        for (const name of ['abc', 'eu/0123abcd', "a b/ü(!'*)~"]) {
          const credentials = { accessKeyId: 'AKID', secretAccessKey: 'secret', sessionToken }
          const signer = createS3Signer({
            bucket: 'images',
            pathStyle,
            endpoint,
            region: async () => 'eu-west-1',
            credentials: async () => credentials,
          })
          const client = new S3Client({
            region: 'eu-west-1',
            forcePathStyle: pathStyle,
            ...(endpoint !== undefined && { endpoint }),
            credentials: {
              ...credentials,
              ...(sessionToken === undefined && { sessionToken: undefined }),
            } as never,
            requestChecksumCalculation: 'WHEN_REQUIRED',
            responseChecksumValidation: 'WHEN_REQUIRED',
          })
          const command = new GetObjectCommand({
            Bucket: 'images',
            Key: name,
            ResponseContentDisposition: 'attachment',
            ResponseContentType: 'application/octet-stream',
          })
          const theirs = new URL(
            await getSignedUrl(client, command, { expiresIn: 1500, signingDate: new Date(nowMs) }),
          )
          const ours = new URL(await signer(name, { nowMs, seconds: 1500 }))
          assert.equal(ours.origin + ours.pathname, theirs.origin + theirs.pathname)
          assert.deepEqual(
            Object.fromEntries([...ours.searchParams].sort()),
            Object.fromEntries([...theirs.searchParams].sort()),
          )
          client.destroy()
        }
      }
    }
  }
})

test('signed GETs equal those of the SDK for every kind of endpoint and credentials', async () => {
  for (const endpoint of [undefined, 'http://minio.example:9000', 'https://s3.example.com:8443'] as const) {
    for (const pathStyle of [false, true]) {
      for (const sessionToken of [undefined, 'token/with+signs==']) {
        for (const name of ['abc', 'eu/0123abcd', "a b/ü(!'*)~"]) {
          const credentials = {
            accessKeyId: 'AKID',
            secretAccessKey: 'secret',
            ...(sessionToken !== undefined && { sessionToken }),
          }
          const theirs = await signedBySdk(name, { endpoint, pathStyle, credentials })
          const sign = createS3GetSigner({
            bucket: 'images',
            pathStyle,
            endpoint,
            region: async () => 'eu-west-1',
            credentials: async () => credentials,
          })
          const [, day = '', time = ''] = /^(\d{8})T(\d{6})Z$/.exec(theirs['x-amz-date'] ?? '') ?? []
          const date = day.replace(/(....)(..)(..)/, '$1-$2-$3')
          const nowMs = Date.parse(`${date}T${time.replace(/(..)(..)(..)/, '$1:$2:$3')}Z`)
          assert.deepEqual((await sign(name, { nowMs })).headers, theirs)
        }
      }
    }
  }
})

/** Returns the headers that the SDK sends to get an object, without those that identify the SDK. */
async function signedBySdk(
  name: string,
  {
    endpoint,
    pathStyle,
    credentials,
  }: {
    endpoint: string | undefined
    pathStyle: boolean
    credentials: { accessKeyId: string; secretAccessKey: string; sessionToken?: string }
  },
): Promise<Record<string, string>> {
  let signed: Record<string, string> = {}
  const client = new S3Client({
    region: 'eu-west-1',
    forcePathStyle: pathStyle,
    ...(endpoint !== undefined && { endpoint }),
    credentials,
    maxAttempts: 1,
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      handle: async ({ headers }: { headers: Record<string, string> }) => {
        signed = headers
        throw new Error('signed')
      },
    } as never,
  })
  type Call = { request: { headers: Record<string, string>; query: object } }
  const bare = (next: (call: Call) => unknown) => (call: Call) => {
    call.request.headers = { host: call.request.headers.host ?? '' }
    call.request.query = {}
    return next(call)
  }
  client.middlewareStack.addRelativeTo(bare as never, {
    relation: 'before',
    toMiddleware: 'httpSigningMiddleware',
    name: 'bare',
  })
  await assert.rejects(client.send(new GetObjectCommand({ Bucket: 'images', Key: name })), /signed/)
  client.destroy()
  return signed
}

async function nodeOn(t: TestContext, name: ObjectStoreName, env: Record<string, string>) {
  const server = await startObjectStore(name)
  t.after(() => server[Symbol.asyncDispose]())
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...own } = server.env
  if (AWS_ACCESS_KEY_ID) Object.assign(process.env, { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY })
  return storeNode(t, { env: { ...own, PORTOLAN_REDIRECT: 'on', ...env } })
}

for (const name of ['minio', 'versitygw', 'azurite'] as const) {
  describe(name, { skip: withoutStore(name) }, () => {
    test('a pull and a range are redirected to the store; the link is stable and never logged', async (t) => {
      const node = await nodeOn(t, name, {})
      const client = ociClient(node.url)
      const bytes = randomBytes(2 * MIB)
      await client.pushBlob('a/b', bytes)
      const path = `/v2/a/b/blobs/${sha256(bytes)}`
      const answers = [await client.get(path), await client.get(path, { Range: 'bytes=10-19' })]
      const [link = '', ranged = ''] = answers.map(({ headers }) => headers.get('location') ?? '')
      assert.deepEqual(
        answers.map(({ status }) => status),
        [307, 307],
      )
      assert.equal(link, ranged)
      assert.equal(answers[0]?.headers.get('cache-control'), 'no-store')
      const whole = await fetch(link)
      assert.equal(whole.status, 200)
      assert.match(whole.headers.get('content-disposition') ?? '', /attachment/)
      assert.equal(sha256(Buffer.from(await whole.arrayBuffer())), sha256(bytes))
      const part = await fetch(link, { headers: { Range: 'bytes=10-19' } })
      assert.equal(part.status, 206)
      assert.ok(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(10, 20)))
      const head = await client.request('HEAD', path)
      assert.deepEqual([head.status, head.headers.get('content-length')], [200, String(bytes.length)])
      assert.equal((await fetch(`${link}0`)).status, 403, 'a changed signature is rejected')
      assert.doesNotMatch(node.logLines.join(''), /X-Amz|sig=/i)
    })
  })
}

test('Portolan serves small blobs and excepted clients directly', {
  skip: withoutStore('minio'),
}, async (t) => {
  const node = await nodeOn(t, 'minio', { PORTOLAN_REDIRECT_BYTES_MIN: '1000' })
  const excepted = await storeNode(t, {
    sharing: node,
    env: {
      ...s3Of(node.region.config.blobs),
      PORTOLAN_REDIRECT: 'on',
      PORTOLAN_REDIRECT_BYTES_MIN: '1000',
      PORTOLAN_REDIRECT_EXCEPT: '127.0.0.0/8',
    },
  })
  const [small, large] = [randomBytes(999), randomBytes(1000)]
  const client = ociClient(node.url)
  await client.pushBlob('a/b', small)
  await client.pushBlob('a/b', large)
  assert.equal((await client.get(`/v2/a/b/blobs/${sha256(small)}`)).status, 200)
  assert.equal((await client.get(`/v2/a/b/blobs/${sha256(large)}`)).status, 307)
  const other = ociClient(excepted.url)
  assert.equal((await other.get(`/v2/a/b/blobs/${sha256(large)}`)).status, 200)
})

function s3Of(blobs: TestNodeBlobs): Record<string, string> {
  if (blobs.kind !== 's3') throw new Error('not on S3')
  return {
    PORTOLAN_BLOBS: 's3',
    PORTOLAN_S3_BUCKET: blobs.bucket,
    PORTOLAN_S3_REGION: blobs.region ?? '',
    PORTOLAN_S3_ENDPOINT: blobs.endpoint ?? '',
    PORTOLAN_S3_PATH_STYLE: 'true',
    PORTOLAN_S3_PREFIX: blobs.prefix,
  }
}

type TestNodeBlobs = Awaited<ReturnType<typeof storeNode>>['region']['config']['blobs']

test('Google: a V4 link signed with a service account key names the object', {
  skip: withoutStore('gcs'),
}, async (t) => {
  const { privateKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  })
  const path = join(await testDirectory(t), 'account.json')
  const account = {
    type: 'service_account',
    client_email: 'portolan@test.example',
    private_key: privateKey,
    project_id: 'test',
  }
  await writeFile(path, JSON.stringify(account))
  process.env.GOOGLE_APPLICATION_CREDENTIALS = path
  t.after(() => {
    delete process.env.GOOGLE_APPLICATION_CREDENTIALS
  })
  const node = await nodeOn(t, 'gcs', {})
  const client = ociClient(node.url)
  const bytes = randomBytes(2 * MIB)
  await client.pushBlob('a/b', bytes)
  const answers = [1, 2].map(() => client.get(`/v2/a/b/blobs/${sha256(bytes)}`))
  const [first, second] = await Promise.all(answers)
  assert.equal(first?.status, 307)
  const link = first?.headers.get('location') ?? ''
  assert.equal(second?.headers.get('location'), link, 'stable for a while')
  const { searchParams } = new URL(link)
  assert.equal(searchParams.get('X-Goog-Algorithm'), 'GOOG4-RSA-SHA256')
  assert.match(searchParams.get('X-Goog-Credential') ?? '', /^portolan@test\.example\//)
  assert.ok(Number(searchParams.get('X-Goog-Expires')) >= 1_200)
  const whole = await fetch(link)
  assert.equal(sha256(Buffer.from(await whole.arrayBuffer())), sha256(bytes))
})
