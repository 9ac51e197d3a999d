// Measures the event path: the latency from commit to the log and to a Kafka reader at 200 pushes a second, the rate of
// the sequencer, the cost for a push, 500 idle readers of the feed, and 10,000 webhook deliveries to 20 receivers, one
// dead and one slow. The broker, the relay and the webhooks run on the same cores as the pushes.
//
//   npm run bench:events -- [seconds]

import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { openKafka } from '#shared/bus/open-kafka.ts'
import { loadConfig } from '#shared/config/load.ts'
import { outboxPending } from '#shared/db/event-log.ts'
import { ownReadersBehind } from '#shared/db/own-readers.ts'
import { statement } from '#shared/db/statement.ts'
import { planDeliveries } from '#shared/db/webhook-deliveries.ts'
import { openRegion } from '#shared/region.ts'
import { addWebhook } from '#shared/webhooks/subscriptions.ts'
import { moveOnce } from '../../services/relay/service.ts'
import { startWebhooks } from '../../services/webhooks/service.ts'
import { startKafka, withoutKafka } from '../support/parts/kafka.ts'
import { startPortolan } from '../support/portolan-process.ts'
import { provenance, push, repositoryName, tags } from '../support/push.ts'
import { push as load } from './load.ts'

const [seconds = 10] = process.argv.slice(2).map(Number)
const RATE = 200
const OUTBOX_ROWS = 50_000
const RECEIVERS = 20
const DELIVERIES = 10_000
const say = (text: string) => process.stdout.write(`${text}\n`)

const cluster = withoutKafka() === false ? await startKafka() : undefined
if (cluster === undefined) say('Kafka is missing: its measurements are skipped')

const directory = await mkdtemp(join(tmpdir(), 'portolan-bench-events-'))
await using running = new AsyncDisposableStack()
running.defer(() => rm(directory, { recursive: true, force: true }))
if (cluster !== undefined) running.use(cluster)
const region = running.use(
  await openRegion(
    loadConfig({
      PORTOLAN_DATA_DIR: directory,
      PORTOLAN_METRICS_LISTEN: 'off',
      PORTOLAN_LOG_LEVEL: 'error',
      PORTOLAN_WEBHOOK_TIMEOUT_SECONDS: '5',
    }),
  ),
)

/**
 * Resolves when nothing is left to number, publish or plan. The backlog from pushes without these services would
 * otherwise distort the next measurement.
 */
async function caughtUp(): Promise<void> {
  for (;;) {
    const readers = cluster === undefined ? ['webhooks'] : ['kafka', 'webhooks']
    const behind = await ownReadersBehind(region.db)
    const done = readers.every((name) => behind.some((one) => one.reader === name && one.behind === 0))
    if (done && !(await outboxPending(region.db))) return
    await pause(100)
  }
}

/** Runs the other services in a separate process, as in production. */
async function startPath(): Promise<AsyncDisposable> {
  const services = await startPortolan({
    services: ['relay', 'webhooks', 'api'],
    dataDir: directory,
    env: { ...cluster?.env, PORTOLAN_DATABASE_URL: region.databaseUrl, PORTOLAN_LOG_LEVEL: 'error' },
  })
  return { [Symbol.asyncDispose]: async () => void (await services.stop()) }
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
const api = running.use(
  await startPortolan({
    services: ['api'],
    dataDir: directory,
    env: { PORTOLAN_DATABASE_URL: region.databaseUrl, PORTOLAN_LOG_LEVEL: 'warn' },
  }),
)
{
  await using _path = await startPath()
  const toReaderMs: number[] = []
  await using stack = new AsyncDisposableStack()
  const { kafka } = loadConfig({ ...cluster?.env })
  if (kafka !== undefined) {
    const bus = stack.use(openKafka(kafka, region))
    let counting = false
    stack.use(
      bus.subscribe({
        group: 'bench',
        position: async (shard) => ({ shard, epoch: 1, seq: 0 }),
        async handle({ events }) {
          const nowMs = Date.now()
          if (counting) for (const { time } of events) toReaderMs.push(nowMs - Date.parse(time))
        },
        onProblem: () => {},
      }),
    )
    await push(region.db, repositoryName('bench/first'), randomUUID())
    await caughtUp()
    while ((await bus.lag('bench').catch(() => 1)) > 0) await pause(100)
    counting = true
  }
  await caughtUp()
  const startMs = performance.now()
  const waiting: Promise<unknown>[] = []
  for (let index = 0; index < RATE * seconds; index++) {
    await pause(Math.max(0, startMs + (index * 1_000) / RATE - performance.now()))
    waiting.push(
      push(region.db, repositoryName(`bench/r${index % 50}`), `${index}-${randomUUID()}`, {
        tags: tags('latest'),
      }),
    )
  }
  await Promise.all(waiting)
  await pause(500)
  const lag = statement<{ p50: number; p99: number; most: number }>(
    'bench-lag',
    `select percentile_cont(0.5) within group (order by ms) as p50, percentile_cont(0.99) within group (order by ms) as p99,
       max(ms) as most
     from (select extract(epoch from logged_at - time)::float8 * 1000 as ms from event_log
           where time > clock_timestamp() - make_interval(secs => :seconds)) as lags`,
  )
  const [row] = await region.db.rows(lag, { seconds })
  say(
    `commit to log at ${RATE} pushes/s: p50 ${row?.p50.toFixed(1)} ms, p99 ${row?.p99.toFixed(1)} ms, ` +
      `max ${row?.most.toFixed(1)} ms   ${(row?.p99 ?? 99) < 50 ? 'reached' : 'MISSED '} p99 < 50 ms`,
  )
  if (kafka !== undefined) {
    const sorted = toReaderMs.toSorted((a, b) => a - b)
    const at = (part: number) => sorted[Math.floor(sorted.length * part)] ?? Number.NaN
    say(
      `commit to a Kafka reader: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${sorted.at(-1)} ms of ` +
        `${sorted.length} events   ${at(0.99) < 100 ? 'reached' : 'MISSED '} p99 < 100 ms`,
    )
  }
}

{
  const portolan = await startPortolan({
    services: ['api'],
    dataDir: directory,
    env: { PORTOLAN_DATABASE_URL: region.databaseUrl },
  })
  const memory = async () =>
    Number(/VmRSS:\s+([0-9]+)/.exec(await readFile(`/proc/${portolan.pid}/status`, 'utf8'))?.[1]) / 1_024
  const abort = new AbortController()
  const open = () =>
    fetch(`${portolan.url}/api/v1/events`, { headers: { Accept: 'text/event-stream' }, signal: abort.signal })
  await open()
  await pause(500)
  const before = await memory()
  const streams = await Promise.all(Array.from({ length: 500 }, open))
  await pause(2_000)
  const more = (await memory()) - before
  say(
    `${streams.length} idle readers of the feed: ${more.toFixed(0)} MiB more   ` +
      `${more < 100 ? 'reached' : 'MISSED '} < 100 MB`,
  )
  abort.abort()
  await portolan.stop()
}

for (const [what, tag] of [
  ['4 KB blobs', undefined],
  ['manifests under a tag', 'latest'],
] as const) {
  const rate = async () => {
    const options = {
      repository: 'bench/app',
      bytes: 4_096,
      clients: 8,
      seconds: seconds / 2,
      ...(tag && { tag }),
    }
    return (await load({ name: 'portolan', url: api.url, headers: {} }, options)).operations / (seconds / 2)
  }
  await rate()
  const without: number[] = []
  const beside: number[] = []
  for (let round = 0; round < 3; round++) {
    without.push(await rate())
    const path = await startPath()
    await caughtUp()
    beside.push(await rate())
    await path[Symbol.asyncDispose]()
  }
  const cost = 1 - median(beside) / median(without)
  say(
    `pushes/s of ${what}, 8 clients: ${median(without).toFixed(0)} alone, ${median(beside).toFixed(0)} with relay, ` +
      `Kafka and webhooks: ${(cost * 100).toFixed(1)} % less   ${cost <= 0.1 ? 'reached' : 'MISSED '} <= 10 %`,
  )
}

const fill = statement<never>(
  'bench-fill',
  `insert into outbox (repository, shard, type, subject, payload, actor, request, instance)
   select 'bench/r' || n % 50, n % 8, 'dev.portolan.registry.push.v1', 'bench', jsonb_build_object('n', n), '', '{}', 'bench'
   from generate_series(1, :rows::int) as n`,
)
await region.db.rows(fill, { rows: OUTBOX_ROWS })
const movingMs = performance.now()
while ((await moveOnce(region)) > 0);
const perSecond = OUTBOX_ROWS / ((performance.now() - movingMs) / 1_000)
say(`sequencer: ${perSecond.toFixed(0)} events/s   ${perSecond >= 5_000 ? 'reached' : 'MISSED '} >= 5,000`)

/** Returns the time until 18 receivers have all deliveries. If `dead`, of the other two one is dead and one slow. */
async function deliverAll(dead: boolean): Promise<number> {
  await using servers = new AsyncDisposableStack()
  const counts: number[] = []
  const ids: string[] = []
  for (let index = 0; index < RECEIVERS; index++) {
    counts.push(0)
    const server: Server = createServer((request, response) => {
      request.resume()
      request.on('end', () => {
        if (dead && index === 0) return
        const answer = () => {
          counts[index] = (counts[index] ?? 0) + 1
          response.end()
        }
        if (dead && index === 1) setTimeout(answer, 1_000)
        else answer()
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    servers.defer(() => {
      server.closeAllConnections()
      server.close()
    })
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
    ids.push(
      (await addWebhook(region, { given: { url, allowPrivate: true, repositories: ['none'] }, provenance }))
        .id,
    )
  }
  const each = DELIVERIES / RECEIVERS
  const deliveries = Array.from({ length: each }, (_, number) =>
    ids.map((id) => ({
      id: `${number}-${randomUUID()}.${id}`,
      subscription: id,
      repository: 'bench/app',
      event: {
        specversion: '1.0',
        id: String(number),
        type: 'dev.portolan.registry.push.v1',
        data: { tags: ['t'] },
      },
    })),
  ).flat()
  await planDeliveries(region.db, { deliveries, giveUpSeconds: 3_600 })
  const startMs = performance.now()
  await using service = await startWebhooks(region)
  while (!counts.every((count, index) => index < 2 || count >= each)) await pause(5)
  const ms = performance.now() - startMs
  await service[Symbol.asyncDispose]()
  return ms
}
const alone = await deliverAll(false)
const besideDead = await deliverAll(true)
say(
  `${DELIVERIES} deliveries to ${RECEIVERS} receivers: ${(alone / 1_000).toFixed(1)} s if all are healthy; with one ` +
    `dead and one slow, the other 18 take ${(besideDead / 1_000).toFixed(1)} s (${(besideDead / alone).toFixed(2)}x)`,
)
