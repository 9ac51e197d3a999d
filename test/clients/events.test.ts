// A docker push is visible to all kinds of consumers: kcat on a real Kafka, the SSE feed, and webhooks in all three
// formats. One webhook receiver is a program built on distribution's notifications package.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { Webhook as StandardWebhook } from 'standardwebhooks'
import { eventually } from '../support/eventually.ts'
import { command, missing } from '../support/parts/command.ts'
import { startDockerEngine } from '../support/parts/docker-engine.ts'
import { startKafka, withoutKafka } from '../support/parts/kafka.ts'
import { findDistributionReceiver } from '../support/parts/tools.ts'
import { startPortolan } from '../support/portolan-process.ts'

const receiver = findDistributionReceiver()
const skip =
  missing('dockerd', 'docker', 'kcat') ||
  withoutKafka() ||
  (receiver === undefined && 'distribution-receiver is not built (.ci/install builds it)') ||
  (process.getuid?.() !== 0 && 'needs root')

const PATIENCE_MS = 30_000
const PUSH = 'dev.portolan.registry.push.v1'

/** Starts the receiver built on distribution's notifications package. It prints one line for each accepted event. */
async function startReceiver(stack: AsyncDisposableStack) {
  const child = spawn(receiver ?? '', { stdio: ['ignore', 'pipe', 'inherit'] })
  stack.defer(() => void child.kill('SIGKILL'))
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  const port = await eventually('the receiver to listen', () => /^listening ([0-9]+)$/m.exec(output)?.[1])
  const lines = () => output.split('\n').slice(1, -1)
  return { url: `http://127.0.0.1:${port}/`, lines }
}

/** Starts an HTTP server that records its requests. */
async function startSink(stack: AsyncDisposableStack) {
  const received: { headers: IncomingHttpHeaders; body: string }[] = []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString()
    })
    request.on('end', () => {
      received.push({ headers: request.headers, body })
      response.end()
    })
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  stack.defer(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, received }
}

test('a docker push reaches kcat, the SSE feed, and signed webhooks in three formats', {
  skip,
}, async () => {
  await using stack = new AsyncDisposableStack()
  const kafka = stack.use(await startKafka())
  const portolan = stack.use(await startPortolan({ env: kafka.env }))
  const engine = stack.use(await startDockerEngine())
  const distribution = await startReceiver(stack)
  const sinks = { cloudevents: await startSink(stack), 'cloudevents-binary': await startSink(stack) }

  const secrets: Record<string, string> = {}
  for (const [format, url] of [
    ['distribution', distribution.url],
    ['cloudevents', sinks.cloudevents.url],
    ['cloudevents-binary', sinks['cloudevents-binary'].url],
  ] as const) {
    const answer = await fetch(`${portolan.url}/api/v1/webhooks`, {
      method: 'POST',
      body: JSON.stringify({ url, format, allowPrivate: true, types: ['push'] }),
    })
    assert.equal(answer.status, 201)
    secrets[format] = ((await answer.json()) as { secret: string }).secret
  }
  const abort = new AbortController()
  stack.defer(() => abort.abort())
  const feed = await fetch(`${portolan.url}/api/v1/events?types=push`, {
    headers: { Accept: 'text/event-stream' },
    signal: abort.signal,
  })
  let streamed = ''
  const streaming = (async () => {
    for await (const chunk of feed.body ?? []) streamed += Buffer.from(chunk).toString()
  })().catch(() => {})

  const image = `${portolan.host}/team/app:1.4`
  await engine.importImage(image, { 'etc/hello': 'hello' })
  const pushed = await engine.docker('push', image)
  const digest = /digest: (sha256:[0-9a-f]{64})/.exec(pushed)?.[1]
  assert.ok(digest, pushed)

  const kcat = () =>
    command('kcat', [
      ...[
        '-C',
        '-b',
        kafka.brokers[0]?.address ?? '',
        '-t',
        'portolan.eu.events',
        '-o',
        'beginning',
        '-e',
        '-q',
      ],
      ...['-f', '%k\t%p\t%h\t%s\n'],
    ]).catch(() => '')
  const lines = await eventually(
    'kcat to print the push',
    async () => {
      const all = (await kcat()).split('\n').map((line) => line.split('\t'))
      return all.some(([, , headers = '']) => headers.includes(`ce_type=${PUSH}`)) && all
    },
    PATIENCE_MS,
  )
  const ofPush = lines.filter(([key]) => key === 'team/app')
  const types = ofPush.map(
    ([, , headers = '']) => /ce_type=dev\.portolan\.registry\.([a-z.0-9]+)/.exec(headers)?.[1],
  )
  assert.deepEqual(types.slice(-3), ['manifest.put.v1', 'tag.set.v1', 'push.v1'])
  assert.equal(new Set(ofPush.map(([, partition]) => partition)).size, 1, 'one repository, one partition')
  const [, , headers = '', value = ''] = ofPush.at(-1) ?? []
  for (const name of ['ce_id', 'ce_source', 'ce_specversion', 'ce_time', 'content-type'])
    assert.ok(headers.includes(`${name}=`), name)
  assert.equal((JSON.parse(value) as { digest: string }).digest, digest)

  await eventually('the feed to contain the push', () => streamed.includes(digest), PATIENCE_MS)
  assert.match(streamed, new RegExp(`event: ${PUSH}`))

  await eventually(
    'the receivers to have the push',
    () =>
      distribution.lines().length > 0 && Object.values(sinks).every(({ received }) => received.length > 0),
    PATIENCE_MS,
  )
  const [line = ''] = distribution.lines()
  const notified = JSON.parse(line) as Record<string, unknown>
  assert.deepEqual(
    [notified.action, notified.repository, notified.tag, notified.digest, notified.method],
    ['push', 'team/app', '1.4', digest, 'PUT'],
  )
  assert.match(String(notified.userAgent), /docker/)
  for (const [format, { received }] of Object.entries(sinks)) {
    const [first] = received
    assert.ok(first)
    const body = new StandardWebhook(secrets[format] ?? '').verify(
      first.body,
      first.headers as Record<string, string>,
    ) as {
      data?: { digest: string }
      digest?: string
    }
    assert.equal(body.data?.digest ?? body.digest, digest, format)
    if (format === 'cloudevents-binary') assert.equal(first.headers['ce-type'], PUSH)
  }
  abort.abort()
  await streaming
})
