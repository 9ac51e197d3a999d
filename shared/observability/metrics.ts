// All metrics, named and described in one place. They belong to a region object: two regions in one process share none.

import { AggregatorRegistry, Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** What the gauges read at each scrape. */
export interface Gauges {
  manifests(): Promise<number>
  uploadsOpen(): Promise<number>
  blobsDamaged(): Promise<number>
  readersBehind(): Promise<{ reader: string; behind: number }[]>
  webhooksWaiting(): Promise<readonly { subscription: string; waiting: number; oldestSeconds: number }[]>
  pool(): { total: number; idle: number; waiting: number }
  databaseRetries(): Readonly<Record<string, number>>
  /** Free bytes of the volumes that uploads and the embedded database write to. */
  freeBytes(): Promise<readonly { name: string; bytes: number }[]>
}

const SWEEP_REASONS = ['owner', 'share', 'unknown'] as const

export interface Metrics {
  /** Counts a finished request. Cheap: label children are bound once per combination. */
  request(facts: { method: string; route: string; status: number; seconds: number; bytesOut: number }): void
  error(code: string): void
  bytesIn(bytes: number): void
  /** Counts a blob whose object is missing, has the wrong size, or has the wrong bytes. */
  blobDamaged(damage: 'missing' | 'size' | 'digest'): void
  /** Counts events that Kafka accepted. */
  published(events: number): void
  /** Counts one attempt of a webhook delivery. */
  webhook(facts: { subscription: string; outcome: 'delivered' | 'failed' }): void
  /** Sets why the sweep of the store removes nothing; undefined if it is not blocked. */
  sweepBlocked(reason: (typeof SWEEP_REASONS)[number] | undefined): void
  /** Returns the metrics in the Prometheus text format. */
  text(): Promise<string>
  /** Returns the raw values, for the process that aggregates several. */
  values(): Promise<unknown>
}

const SECONDS_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600]

export function createMetrics(gauges: Gauges): Metrics {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })
  const requests = new Counter({
    name: 'portolan_requests_total',
    help: 'Completed requests, by route, method and status.',
    labelNames: ['route', 'method', 'status'] as const,
    registers,
  })
  const seconds = new Histogram({
    name: 'portolan_request_seconds',
    help: 'Time from the request head to the last byte of the response.',
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
    help: 'Damaged blobs found, by kind of damage: missing, size or digest.',
    labelNames: ['damage'] as const,
    registers,
  })
  new Gauge({
    name: 'portolan_blobs_damaged',
    help: 'Blobs that are currently damaged. A new push repairs them.',
    registers,
    async collect() {
      this.set(await gauges.blobsDamaged())
    },
  })
  const published = new Counter({
    name: 'portolan_kafka_published_total',
    help: 'Events that Kafka accepted.',
    registers,
  })
  new Gauge({
    name: 'portolan_event_reader_behind',
    help: 'Events that a log reader has not read yet: kafka (publisher), webhooks (planner), peer:<region>.',
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
    help: 'Age of the oldest waiting delivery, by subscription with any.',
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
    help: 'Waiting webhook deliveries, by subscription with any.',
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
    help: 'Open upload sessions.',
    registers,
    async collect() {
      this.set(await gauges.uploadsOpen())
    },
  })
  new Gauge({
    name: 'portolan_database_connections',
    help: 'Connections of the write pool. `waiting` counts requests without a connection.',
    labelNames: ['state'] as const,
    registers,
    collect() {
      for (const [state, value] of Object.entries(gauges.pool())) this.set({ state }, value)
    },
  })
  new Counter({
    name: 'portolan_database_retries_total',
    help: 'Retried writes, by cause. A deadlock means that a writer breaks the lock order.',
    labelNames: ['cause'] as const,
    registers,
    collect() {
      this.reset()
      for (const [cause, count] of Object.entries(gauges.databaseRetries())) this.inc({ cause }, count)
    },
  })

  const blocked = new Gauge({
    name: 'portolan_sweep_blocked',
    help:
      'Whether the sweep of the store removes nothing (1), by reason: the store belongs to another database (owner), ' +
      'more than a tenth of it has no row (share), more has no row than was ever known (unknown).',
    labelNames: ['reason'] as const,
    registers,
  })
  new Gauge({
    name: 'portolan_free_bytes',
    help: 'Free bytes on the volumes of blobs and of the embedded database. Uploads stop at PORTOLAN_FREE_BYTES_MIN.',
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
  // Routes, methods and statuses are closed sets, so this map stays small.
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

/** Returns one text for several processes' values. Counters are summed. */
export async function aggregateMetrics(values: readonly unknown[]): Promise<string> {
  return AggregatorRegistry.aggregate([...values] as object[]).metrics()
}
