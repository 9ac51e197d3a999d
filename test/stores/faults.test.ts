// Portolan on a real S3 server behind a proxy that injects faults. After each fault, every push answered with 201 reads
// back with its digest, nothing half-written is visible, and every failure is bounded in time and has an error code.
// tests: shared/blobs/objects/object-read.ts, shared/blobs/objects/part-store.ts

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { after, afterEach, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { eventually } from '../support/eventually.ts'
import { sha256 } from '../support/image.ts'
import { type OciClient, ociClient } from '../support/oci-client.ts'
import { type ObjectStoreServer, startObjectStore, withoutStore } from '../support/parts/object-stores.ts'
import { startPortolan } from '../support/portolan-process.ts'
import { storeNode, type TestNode } from '../support/region.ts'
import { type Harm, type StoreProxy, type StoreRequest, startStoreProxy } from '../support/store-proxy.ts'

const MIB = 1024 * 1024
/** The value of PORTOLAN_STORE_TIMEOUT_SECONDS here, and a bound for responses that wait for that timeout. */
const TIMEOUT_SECONDS = 2
const ANSWER_MS_MAX = TIMEOUT_SECONDS * 1_000 * 4

describe('S3 behind a faulty proxy', { skip: withoutStore('minio') }, () => {
  let server: ObjectStoreServer
  let proxy: StoreProxy
  let node: TestNode
  let client: OciClient
  const cleanups: (() => unknown)[] = []
  before(async () => {
    server = await startObjectStore('minio')
    proxy = await startStoreProxy(server)
    const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...env } = server.env
    Object.assign(process.env, { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY })
    node = await storeNode(
      { after: (cleanup: unknown) => void cleanups.push(cleanup as () => unknown) },
      {
        env: {
          ...env,
          PORTOLAN_S3_ENDPOINT: proxy.url,
          PORTOLAN_STORE_TIMEOUT_SECONDS: String(TIMEOUT_SECONDS),
        },
      },
    )
    client = ociClient(node.url)
    proxy.heal()
  })
  afterEach(() => proxy.heal())
  after(async () => {
    for (const cleanup of cleanups) await cleanup()
    await proxy[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
  })

  const pull = (bytes: Buffer) => client.get(`/v2/a/b/blobs/${sha256(bytes)}`)
  const isPart = ({ method, query }: StoreRequest) => method === 'PUT' && query.includes('partNumber=')
  const isGet = ({ method }: StoreRequest) => method === 'GET'
  /** Injects the fault into the first `times` matching requests. */
  const first = (times: number, matches: (request: StoreRequest) => boolean, harm: Harm) => {
    let left = times
    proxy.harm = (request) => (matches(request) && left-- > 0 ? harm : undefined)
  }
  const kinds = () =>
    proxy.requests.map(({ method, query }) => {
      const [, what = 'object'] = /(uploads|partNumber|uploadId|delete)/.exec(query) ?? []
      return `${method} ${what}`
    })

  async function startedUpload(): Promise<string> {
    const started = await client.request('POST', '/v2/a/b/blobs/uploads/')
    return started.headers.get('location') ?? ''
  }

  async function withinBound<T>(work: Promise<T>): Promise<T> {
    const late = pause(ANSWER_MS_MAX, undefined, { ref: false }).then(() => {
      throw new Error(`no response within ${ANSWER_MS_MAX} ms`)
    })
    return Promise.race([work, late])
  }

  test('a small push writes and verifies in two requests; a small pull takes one, then none', async () => {
    const bytes = randomBytes(4096)
    await client.pushBlob('a/b', bytes)
    assert.deepEqual(kinds(), ['PUT object', 'HEAD object'])
    proxy.heal()
    assert.ok((await pull(bytes)).body.equals(bytes))
    assert.deepEqual(kinds(), ['GET object'])
    assert.ok((await pull(bytes)).body.equals(bytes))
    assert.equal(proxy.requests.length, 1)
  })

  test('a large streamed push never copies or reads back; a pull is one request', async () => {
    const bytes = randomBytes(12 * MIB)
    const patched = await client.request('PATCH', await startedUpload(), { body: bytes })
    assert.equal(patched.status, 202)
    const parts = kinds().sort()
    assert.deepEqual(parts, [
      'POST uploads',
      'PUT object',
      'PUT partNumber',
      'PUT partNumber',
      'PUT partNumber',
    ])
    proxy.heal()
    const ended = await client.request('PUT', `${patched.headers.get('location')}?digest=${sha256(bytes)}`)
    assert.equal(ended.status, 201)
    assert.deepEqual(
      kinds(),
      ['POST uploadId', 'HEAD object', 'POST delete'],
      'one request completes, one verifies the object, one removes the rest',
    )
    proxy.heal()
    assert.ok((await pull(bytes)).body.equals(bytes))
    assert.deepEqual(kinds(), ['GET object'])
  })

  test('bytes with the wrong digest leave no object behind, however they were uploaded', async () => {
    const { blobs } = node.region
    const before = (await blobs.list('', 1_000)).length
    const wrong = sha256('something else')
    for (const size of [1_000, 11 * MIB]) {
      const bytes = randomBytes(size)
      const whole = await client.request('POST', `/v2/a/b/blobs/uploads/?digest=${wrong}`, { body: bytes })
      assert.equal(whole.status, 400)
      const ended = await client.request('PUT', `${await startedUpload()}?digest=${wrong}`, { body: bytes })
      assert.equal(ended.status, 400)
      const patched = await client.request('PATCH', await startedUpload(), { body: bytes })
      const later = await client.request('PUT', `${patched.headers.get('location')}?digest=${wrong}`)
      assert.equal(later.status, 400)
    }
    assert.equal((await blobs.list('', 1_000)).length, before)
  })

  test('latency causes no errors', async () => {
    proxy.harm = () => ({ kind: 'latency', ms: 100 })
    const bytes = randomBytes(6 * MIB)
    await client.pushBlob('a/b', bytes)
    assert.ok((await pull(bytes)).body.equals(bytes))
  })

  for (const harm of [
    { kind: 'reset request', afterBytes: 100_000 },
    { kind: 'reset answer', afterBytes: -1 },
    { kind: 'corrupt request' },
    { kind: 'status', status: 503, code: 'SlowDown' },
    { kind: 'status', status: 500, code: 'InternalError' },
    { kind: 'black hole' },
  ] as const satisfies Harm[]) {
    test(`${harm.kind}${'code' in harm ? ` ${harm.code}` : ''} on a part: it is sent again`, async () => {
      const bytes = randomBytes(11 * MIB)
      first(1, isPart, harm)
      await client.pushBlob('a/b', bytes)
      proxy.heal()
      assert.equal(sha256((await pull(bytes)).body), sha256(bytes))
    })
  }

  for (const harm of [
    { kind: 'reset answer', afterBytes: 3_000_000 },
    { kind: 'truncate answer', afterBytes: 3_000_000 },
  ] as const satisfies Harm[]) {
    test(`${harm.kind} during a pull resumes by range, invisible to the client`, async () => {
      const bytes = randomBytes(11 * MIB)
      await client.pushBlob('a/b', bytes)
      proxy.heal()
      first(2, isGet, harm)
      assert.equal(sha256((await pull(bytes)).body), sha256(bytes))
      assert.equal(proxy.requests.length, 3)
    })

    test(`repeated ${harm.kind} before the first byte returns 503`, async () => {
      const bytes = randomBytes(11 * MIB)
      await client.pushBlob('a/b', bytes)
      proxy.harm = (request) => (isGet(request) ? { kind: harm.kind, afterBytes: -1 } : undefined)
      assert.equal((await withinBound(pull(bytes))).status, 503)
    })

    test(`repeated ${harm.kind} during a pull: the connection breaks, no short body looks complete`, async () => {
      const bytes = randomBytes(11 * MIB)
      await client.pushBlob('a/b', bytes)
      proxy.heal()
      let gets = 0
      proxy.harm = (request) =>
        isGet(request) ? { kind: harm.kind, afterBytes: gets++ === 0 ? 3_000_000 : -1 } : undefined
      await assert.rejects(withinBound(pull(bytes)), /terminated|aborted|other side closed|fetch failed/)
    })
  }

  test('a small blob corrupted in transit is read again, invisible to the client', async () => {
    const bytes = randomBytes(5000)
    await client.pushBlob('a/b', bytes)
    first(1, isGet, { kind: 'corrupt answer' })
    assert.ok((await pull(bytes)).body.equals(bytes))
  })

  test('a large blob corrupted in transit is never completed and not marked as damaged', async () => {
    const bytes = randomBytes(11 * MIB)
    await client.pushBlob('a/b', bytes)
    proxy.heal()
    first(1, isGet, { kind: 'corrupt answer' })
    await assert.rejects(withinBound(pull(bytes)), /terminated|aborted|other side closed|fetch failed/)
    // A retry of an earlier test may come in between.
    await eventually('the second read', () => proxy.requests.filter(isGet).length >= 2)
    proxy.heal()
    assert.equal(sha256((await pull(bytes)).body), sha256(bytes))
    assert.ok(!node.logLines.some((line) => line.includes('is damaged')))
  })

  test('black hole: pulls and pushes fail in bounded time, cached blobs are served', async () => {
    const cached = randomBytes(4096)
    const large = randomBytes(6 * MIB)
    await client.pushBlob('a/b', cached)
    await client.pushBlob('a/b', large)
    await pull(cached)
    proxy.harm = () => ({ kind: 'black hole' })
    const started = await startedUpload()
    const [small, big, push] = await withinBound(
      Promise.all([
        pull(cached),
        pull(large).catch((error: Error) => error),
        client.request('PATCH', started, { body: randomBytes(1000) }),
      ]),
    )
    assert.equal(small.status, 200)
    assert.ok(big instanceof Error || big.status === 503, 'no byte was sent')
    assert.equal(push.status, 503)
    assert.ok(push.headers.get('retry-after'))
    const { ready, reasons } = await node.region.readiness()
    // A recent successful probe may still be valid. It is repeated within seconds.
    if (!ready) assert.match(reasons.join(), /blob store/)
    proxy.heal()
    assert.equal((await client.request('GET', started)).status, 204, 'the session is intact')
    const again = await client.request('PATCH', started, { body: cached })
    assert.equal(again.status, 202)
  })

  test('403 during an upload fails it with an error code, and the session can continue', async () => {
    const started = await startedUpload()
    const bytes = randomBytes(12 * MIB)
    let parts = 0
    proxy.harm = (request) =>
      isPart(request) && ++parts === 2 ? { kind: 'status', status: 403, code: 'AccessDenied' } : undefined
    const refused = await client.request('PATCH', started, { body: bytes })
    assert.equal(refused.status, 503)
    assert.match(await refused.text(), /UNAVAILABLE/)
    proxy.heal()
    const patched = await client.request('PATCH', started, { body: bytes })
    assert.equal(patched.status, 202)
    const ended = await client.request('PUT', `${patched.headers.get('location')}?digest=${sha256(bytes)}`)
    assert.equal(ended.status, 201)
    assert.equal(sha256((await pull(bytes)).body), sha256(bytes))
  })

  test('a disconnected client stops the request to the store', async () => {
    const bytes = randomBytes(40 * MIB)
    await client.pushBlob('a/b', bytes)
    const abort = new AbortController()
    const answer = await fetch(`${node.url}/v2/a/b/blobs/${sha256(bytes)}`, { signal: abort.signal })
    const reader = answer.body?.getReader()
    await reader?.read()
    abort.abort()
    await reader?.read().catch(() => {})
    // The connection to the store is closed rather than drained. The next pull opens a new one.
    assert.equal(sha256((await pull(bytes)).body), sha256(bytes))
  })

  test('2,000 clients that wait for an unavailable store use bounded connections and memory', {
    skip: process.platform !== 'linux' && 'memory is read from /proc',
  }, async () => {
    // A separate process, so that the memory of the clients is not counted.
    await using portolan = await startPortolan({
      env: {
        ...server.env,
        PORTOLAN_S3_ENDPOINT: proxy.url,
        // It has a separate database, so it needs a separate prefix.
        PORTOLAN_S3_PREFIX: 'apart',
        PORTOLAN_STORE_TIMEOUT_SECONDS: String(TIMEOUT_SECONDS),
      },
    })
    const apart = ociClient(portolan.url)
    const bytes = randomBytes(6 * MIB)
    await apart.pushBlob('a/b', bytes)
    const peakMiB = async () => {
      const status = await readFile(`/proc/${portolan.pid}/status`, 'utf8')
      return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024
    }
    const wanted = () => apart.get(`/v2/a/b/blobs/${sha256(bytes)}`)
    proxy.harm = () => ({ kind: 'black hole' })
    const before = await peakMiB()
    const outcomes = await Promise.allSettled(Array.from({ length: 2_000 }, wanted))
    assert.ok(outcomes.every((outcome) => outcome.status === 'rejected' || outcome.value.status === 503))
    assert.ok(proxy.connectionsMax() <= 300, `${proxy.connectionsMax()} connections`)
    const grownMiB = (await peakMiB()) - before
    assert.ok(grownMiB < 200, `${Math.round(grownMiB)} MiB`)
    proxy.heal()
    assert.equal(sha256((await wanted()).body), sha256(bytes))
  })

  test('the server is killed and restarted during 100 pushes and pulls: every 201 reads back', async (t) => {
    const acknowledged: Buffer[] = []
    const answers = new Map<string, number>()
    const count = (what: string) => answers.set(what, (answers.get(what) ?? 0) + 1)
    let done = 0
    const worker = async () => {
      while (done < 100) {
        if (++done === 30) {
          server.kill('SIGKILL')
          void server.restart()
        }
        const bytes = randomBytes(done % 10 === 0 ? 6 * MIB : 20_000)
        try {
          await client.pushBlob('a/b', bytes)
          acknowledged.push(bytes)
          count('push 201')
          const { status, body } = await pull(bytes)
          count(`pull ${status}`)
          if (status === 200) assert.ok(body.equals(bytes))
        } catch {
          count('failed')
          await pause(100)
        }
      }
    }
    await Promise.all(Array.from({ length: 4 }, worker))
    for (const bytes of acknowledged) assert.equal(sha256((await pull(bytes)).body), sha256(bytes))
    t.diagnostic(JSON.stringify(Object.fromEntries(answers)))
    assert.ok(acknowledged.length > 20)
  })

  test('after all faults, no log line or metric contains a secret key, signature or signed header', async () => {
    const text = `${node.logLines.join('')}${await node.region.metrics.text()}`
    assert.match(text, /request could not be served/, 'there were failures to log')
    assert.ok(!text.includes(server.env.AWS_SECRET_ACCESS_KEY ?? 'unset'))
    assert.doesNotMatch(text, /AWS4-HMAC|X-Amz-Signature|"authorization":"(?!\*\*\*)/i)
  })
})
