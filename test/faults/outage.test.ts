// A database that becomes unavailable and returns. Clients are told to retry, the log has one line for each change, and
// running services continue.
// tests: shared/db/outage.ts

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { openDatabase } from '#shared/db/connect.ts'
import { outboxPending } from '#shared/db/event-log.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { startJanitor } from '../../services/janitor/service.ts'
import { startRelay } from '../../services/relay/service.ts'
import { startWebhooks } from '../../services/webhooks/service.ts'
import { eventually } from '../support/eventually.ts'
import { testImage } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'
import { push, repositoryName, tags } from '../support/push.ts'
import { testDirectory, testNode } from '../support/region.ts'

const root = join(import.meta.dirname, '..', '..')
/** Long enough for hundreds of attempts by everything that retries. */
const AWAY_MS = 4_000

/** A separate Postgres server that can be stopped and restarted at the same address. */
async function ownPostgres(t: TestContext) {
  const directory = await testDirectory(t)
  const start = () => startEmbeddedPostgres({ directory, settings: { fsync: 'off' } })
  let running: EmbeddedPostgres | undefined = await start()
  const { url } = running
  const stop = async () => {
    await running?.[Symbol.asyncDispose]()
    running = undefined
  }
  t.after(stop)
  return {
    url,
    stop,
    async start() {
      running = await start()
    },
  }
}

test('an outage logs one line at its start and one at its end, and every response is 503', async (t) => {
  const postgres = await ownPostgres(t)
  const node = await testNode(t, {
    env: { PORTOLAN_DATABASE_URL: postgres.url, PORTOLAN_SWEEP_SECONDS: '1' },
  })
  const { region, logLines } = node
  await using _relay = await startRelay(region)
  await using _webhooks = await startWebhooks(region)
  await using _janitor = await startJanitor(region)
  const client = ociClient(node.url)
  const image = testImage()
  await client.pushImage('a', image, 'v1')
  const stream = await client.request('GET', '/api/v1/events', { headers: { Accept: 'text/event-stream' } })
  // The stream breaks if the database becomes unavailable while it catches up.
  t.after(() => stream.body?.cancel().catch(() => {}))
  const before = logLines.length

  await postgres.stop()
  const untilMs = performance.now() + AWAY_MS
  const statuses = new Map<string, number>()
  const asking = Array.from({ length: 8 }, async (_, number) => {
    while (performance.now() < untilMs) {
      const answers = [
        await client.pushManifest('a', `v${number}`, image),
        await client.request('GET', '/v2/a/tags/list'),
        await client.request('POST', '/v2/a/blobs/uploads/'),
        await client.request('DELETE', '/v2/a/manifests/v1'),
      ]
      for (const answer of answers) {
        const seen = `${answer.status} ${answer.headers.has('retry-after')} ${/[A-Z_]{4,}/.exec(await answer.text())}`
        statuses.set(seen, (statuses.get(seen) ?? 0) + 1)
      }
      // Reads sent in this time are held and answered when the database is back.
      await pause(20)
    }
  })
  await Promise.all(asking)
  t.diagnostic(JSON.stringify(Object.fromEntries(statuses)))
  assert.deepEqual([...statuses.keys()], ['503 true UNAVAILABLE'])
  const read = client.get('/v2/a/manifests/v1')
  await postgres.start()
  assert.equal((await read).status, 200, 'a read is held until the database is back')
  await eventually('the log line that the database is back', () =>
    logLines.some((line) => line.includes('the database is back')),
  )
  await eventually('a push', async () => (await client.pushManifest('a', 'v2', image)).status === 201)
  await eventually('the push to be numbered', async () => !(await outboxPending(region.db)))

  const trouble = logLines
    .slice(before)
    .map((line) => JSON.parse(line) as { msg?: string; route?: string; level: string })
    .filter(({ route }) => route === undefined)
    .map(({ msg }) => msg)
  assert.deepEqual(trouble, [
    'the database is unreachable: requests wait or are answered 503',
    'the database is back',
  ])
})

test('a process with one worker and metrics off survives a restart of Postgres and continues', async (t) => {
  const postgres = await ownPostgres(t)
  const dataDir = await testDirectory(t)
  const children = ['relay', 'webhooks', 'janitor'].map((service) => {
    const child = spawn(
      process.execPath,
      ['--import', './services/require-node.js', 'services/main.ts', service],
      {
        cwd: root,
        stdio: ['ignore', 'pipe', 'inherit'],
        env: {
          PATH: process.env.PATH,
          PORTOLAN_DATABASE_URL: postgres.url,
          PORTOLAN_DATA_DIR: dataDir,
          PORTOLAN_METRICS_LISTEN: 'off',
          PORTOLAN_SWEEP_SECONDS: '1',
        },
      },
    )
    t.after(() => child.kill('SIGKILL'))
    const log: string[] = []
    child.stdout.on('data', (chunk: Buffer) => log.push(chunk.toString()))
    return { child, log, service }
  })
  for (const { log, service } of children)
    await eventually(`${service} to greet`, () => log.join('').includes('Ctrl-C'), 60_000)
  await postgres.stop()
  // Wait as long as a restart takes. In this time nothing else may keep the processes alive.
  await pause(AWAY_MS)
  await postgres.start()
  await using db = openDatabase({ url: postgres.url, connections: 2, onIdleError: () => {} })
  await push(db, repositoryName('a'), 'after the restart', { tags: tags('t') })
  await eventually('the relay to number', async () => !(await outboxPending(db)), 30_000)
  for (const { child, service } of children) {
    assert.equal(child.exitCode, null, `${service} is still running`)
    const exited = once(child, 'exit')
    child.kill('SIGTERM')
    assert.deepEqual(await exited, [0, null], service)
  }
})
