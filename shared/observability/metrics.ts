// Every number we emit, named and described in one place, hanging off the region: two regions in a process share none.

import { AggregatorRegistry, Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** What gauges read when they are scraped. */
export interface Gauges {
  manifests(): Promise<number>
  uploadsOpen(): Promise<number>
  blobsDamaged(): Promise<number>
  readersBehind(): Promise<{ reader: string; behind: number }[]>
  webhooksWaiting(): Promise<readonly { subscription: string; waiting: number; oldestSeconds: number }[]>
  pool(): { total: number; idle: number; waiting: number }
  databaseRetries(): Readonly<Record<string, number>>
  /** Of the volumes that uploads and the embedded database write to. */
  freeBytes(): Promise<readonly { name: string; bytes: number }[]>
}

const SWEEP_REASONS = ['owner', 'share', 'unknown'] as const

export interface Metrics {
  /** Counts a finished request. Cheap: children are bound once per combination. */
  request(facts: { method: string; route: string; status: number; seconds: number; bytesOut: number }): void
  error(code: string): void
  bytesIn(bytes: number): void
  /** Counts a blob whose object was found missing, of another size or of other bytes. */
  blobDamaged(damage: 'missing' | 'size' | 'digest'): void
  /** Counts events that Kafka took. */
  published(events: number): void
  /** Counts an attempt of a webhook delivery. */
  webhook(facts: { subscription: string; outcome: 'delivered' | 'failed' }): void
  /** Says why the sweep of the store removes nothing; undefined: it is not held up. */
  sweepBlocked(reason: (typeof SWEEP_REASONS)[number] | undefined): void
  /** Text in the Prometheus exposition format. */
  text(): Promise<string>
  /** For the process that gathers several. */
  values(): Promise<unknown>
}

const SECONDS_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600]

export function createMetrics(gauges: Gauges): Metrics {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })
  const requests = new Counter({
    name: 'portolan_requests_total',
    help: 'Requests answered, by route, method and status.',
    labelNames: ['route', 'method', 'status'] as const,
    registers,
  })
  const seconds = new Histogram({
    name: 'portolan_request_seconds',
    help: 'Time from the request head to the last byte of the answer.',
    labelNames: ['route', 'method'] as const,
    buckets: SECONDS_BUCKETS,
    registers,
  })
  const errors = new Counter({
    name: 'portolan_errors_total',
    help: 'Error answers, by code.',
    labelNames: ['code'] as const,
    registers,
  })
  const bytesOut = new Counter({ name: 'portolan_sent_bytes_total', help: 'Body bytes sent.', registers })
  const bytesIn = new Counter({
    name: 'portolan_received_bytes_total',
    help: 'Upload bytes received.',
    registers,
  })
  const damaged = new Counter({
    name: 'portolan_blobs_damaged_total',
    help: 'Blobs found damaged, by what is wrong: missing, size or digest.',
    labelNames: ['damage'] as const,
    registers,
  })
  new Gauge({
    name: 'portolan_blobs_damaged',
    help: 'Blobs that are damaged and wait to be pushed again.',
    registers,
    async collect() {
      this.set(await gauges.blobsDamaged())
    },
  })
  const published = new Counter({
    name: 'portolan_kafka_published_total',
    help: 'Events that Kafka took.',
    registers,
  })
  new Gauge({
    name: 'portolan_event_reader_behind',
    help: 'Events that a reader of the log has before it: kafka (the publisher), webhooks (the planner), peer:<region>.',
    labelNames: ['reader'] as const,
    registers,
    async collect() {
      for (const { reader, behind } of await gauges.readersBehind()) this.set({ reader }, behind)
    },
  })
  const attempts = new Counter({
    name: 'portolan_webhook_attempts_total',
    help: 'Attempts of webhook deliveries, by subscription and outcome.',
    labelNames: ['subscription', 'outcome'] as const,
    registers,
  })
  new Gauge({
    name: 'portolan_webhook_oldest_seconds',
    help: 'Age of the oldest delivery that waits, by subscription that has one.',
    labelNames: ['subscription'] as const,
    registers,
    async collect() {
      const all = await gauges.webhooksWaiting()
      this.reset()
      for (const { subscription, oldestSeconds } of all) this.set({ subscription }, oldestSeconds)
    },
  })
  new Gauge({
    name: 'portolan_webhook_deliveries_waiting',
    help: 'Webhook deliveries that wait, by subscription that has any.',
    labelNames: ['subscription'] as const,
    registers,
    async collect() {
      const all = await gauges.webhooksWaiting()
      this.reset()
      for (const { subscription, waiting } of all) this.set({ subscription }, waiting)
    },
  })
  new Gauge({
    name: 'portolan_manifests',
    help: 'Manifests stored.',
    registers,
    async collect() {
      this.set(await gauges.manifests())
    },
  })
  new Gauge({
    name: 'portolan_uploads_open',
    help: 'Upload sessions open.',
    registers,
    async collect() {
      this.set(await gauges.uploadsOpen())
    },
  })
  new Gauge({
    name: 'portolan_database_connections',
    help: 'Connections of the write pool; waiting are requests without one.',
    labelNames: ['state'] as const,
    registers,
    collect() {
      for (const [state, value] of Object.entries(gauges.pool())) this.set({ state }, value)
    },
  })
  new Counter({
    name: 'portolan_database_retries_total',
    help: 'Writes that ran again, by cause. Deadlocks mean that a writer breaks the lock order.',
    labelNames: ['cause'] as const,
    registers,
    collect() {
      this.reset()
      for (const [cause, count] of Object.entries(gauges.databaseRetries())) this.inc({ cause }, count)
    },
  })

  const blocked = new Gauge({
    name: 'portolan_sweep_blocked',
    help: "1 while the sweep of the store removes nothing: it is another database's (owner), more than a tenth has no row (share), more than was ever known has no row (unknown).",
    labelNames: ['reason'] as const,
    registers,
  })
  new Gauge({
    name: 'portolan_free_bytes',
    help: 'Free bytes of the volumes of blobs and of the embedded database; uploads stop at PORTOLAN_FREE_BYTES_MIN.',
    labelNames: ['volume'] as const,
    registers,
    async collect() {
      for (const { name, bytes } of await gauges.freeBytes()) this.set({ volume: name }, bytes)
    },
  })

  interface Bound {
    requests: Counter.Internal
    seconds: Histogram.Internal<'route' | 'method'>
  }
  // Routes, methods and statuses are closed sets, so this map is small.
  const bound = new Map<string, Bound>()

  return {
    request(facts) {
      const key = `${facts.route} ${facts.method} ${facts.status}`
      let children = bound.get(key)
      if (children === undefined) {
        const { route, method, status } = facts
        children = {
          requests: requests.labels(route, method, String(status)),
          seconds: seconds.labels(route, method),
        }
        bound.set(key, children)
      }
      children.requests.inc()
      children.seconds.observe(facts.seconds)
      if (facts.bytesOut > 0) bytesOut.inc(facts.bytesOut)
    },
    published: (events) => published.inc(events),
    webhook: (facts) => attempts.inc(facts),
    sweepBlocked(reason) {
      for (const one of SWEEP_REASONS) blocked.set({ reason: one }, one === reason ? 1 : 0)
    },
    error: (code) => errors.inc({ code }),
    bytesIn: (bytes) => bytesIn.inc(bytes),
    blobDamaged: (damage) => damaged.inc({ damage }),
    text: () => registry.metrics(),
    values: () => registry.getMetricsAsJSON(),
  }
}

/** One text from the values of several processes: counters are summed. */
export async function aggregateMetrics(values: readonly unknown[]): Promise<string> {
  return AggregatorRegistry.aggregate([...values] as object[]).metrics()
}
