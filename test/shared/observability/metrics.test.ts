import assert from 'node:assert/strict'
import { test } from 'node:test'
import { aggregateMetrics, createMetrics } from '#shared/observability/metrics.ts'

const gauges = {
  manifests: async () => 7,
  readersBehind: async () => [{ reader: 'kafka', behind: 7 }],
  webhooksWaiting: async () => [{ subscription: 's1', waiting: 4, oldestSeconds: 60 }],
  uploadsOpen: async () => 3,
  blobsDamaged: async () => 2,
  pool: () => ({ total: 8, idle: 5, waiting: 0 }),
  databaseRetries: () => ({ deadlock: 2, serialization: 0 }),
  freeBytes: async () => [{ name: 'blobs', bytes: 9 }],
}
const request = { method: 'GET', route: 'manifest', status: 200, seconds: 0.002, bytesOut: 100 }

test('the text contains requests, errors, bytes and gauges', async () => {
  const metrics = createMetrics(gauges)
  metrics.request(request)
  metrics.request({ ...request, status: 404, bytesOut: 0 })
  metrics.error('MANIFEST_UNKNOWN')
  metrics.bytesIn(50)
  metrics.sweepBlocked('share')
  const text = await metrics.text()
  for (const line of [
    'portolan_requests_total{route="manifest",method="GET",status="200"} 1',
    'portolan_requests_total{route="manifest",method="GET",status="404"} 1',
    'portolan_request_seconds_count{route="manifest",method="GET"} 2',
    'portolan_errors_total{code="MANIFEST_UNKNOWN"} 1',
    'portolan_sent_bytes_total 100',
    'portolan_received_bytes_total 50',
    'portolan_manifests 7',
    'portolan_free_bytes{volume="blobs"} 9',
    'portolan_sweep_blocked{reason="share"} 1',
    'portolan_sweep_blocked{reason="owner"} 0',
    'portolan_webhook_deliveries_waiting{subscription="s1"} 4',
    'portolan_webhook_oldest_seconds{subscription="s1"} 60',
    'portolan_event_reader_behind{reader="kafka"} 7',
    'portolan_uploads_open 3',
    'portolan_database_connections{state="idle"} 5',
    'portolan_database_retries_total{cause="deadlock"} 2',
  ]) {
    assert.ok(text.includes(line), line)
  }
})

test('two regions in a process share no metric', async () => {
  const [one, two] = [createMetrics(gauges), createMetrics(gauges)]
  one.request(request)
  assert.ok(!(await two.text()).includes('route="manifest"'))
})

test('counters of several processes are summed', async () => {
  const processes = [createMetrics(gauges), createMetrics(gauges)]
  for (const metrics of processes) metrics.request(request)
  const text = await aggregateMetrics(await Promise.all(processes.map((metrics) => metrics.values())))
  assert.ok(text.includes('portolan_requests_total{route="manifest",method="GET",status="200"} 2'), text)
  assert.ok(text.includes('portolan_database_retries_total{cause="deadlock"} 4'), text)
})
