import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { signatureHeaders, webhookMessage } from '#shared/webhooks/webhook-message.ts'

const event: CloudEvent = {
  specversion: '1.0',
  id: 'eu:1:2:3',
  source: '/regions/eu',
  type: 'dev.portolan.registry.push.v1',
  subject: 'team/app@sha256:0',
  time: '2026-11-24T08:00:00.000Z',
  datacontenttype: 'application/json',
  dataschema: '/api/v1/schemas/dev.portolan.registry.push.v1.json',
  partitionkey: 'team/app',
  sequence: '3',
  position: 'eu:1:9',
  data: {
    repository: 'team/app',
    digest: 'sha256:0',
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    size: 5,
    tags: ['v1', 'latest'],
    actor: { name: 'alice' },
    request: { id: 'r', addr: '10.0.0.1', host: 'h:5000', method: 'PUT', userAgent: 'docker' },
    instance: 'node',
  },
}

test("a push of two tags is two events of distribution's envelope; a mount and a delete are one", () => {
  const { events } = JSON.parse(webhookMessage('distribution', event).body.toString())
  assert.deepEqual(
    events.map(({ id, action, target }: { id: string; action: string; target: { tag: string } }) => [
      id,
      action,
      target.tag,
    ]),
    [
      ['eu:1:2:3:0', 'push', 'v1'],
      ['eu:1:2:3:1', 'push', 'latest'],
    ],
  )
  assert.equal(events[0].target.url, 'http://h:5000/v2/team/app/manifests/sha256:0')
  assert.equal(events[0].request.useragent, 'docker')
  const mounted = {
    ...event,
    type: 'dev.portolan.registry.blob.mounted.v1',
    data: { repository: 'b', digest: 'd', size: 1, from: 'a' },
  }
  const [mount] = JSON.parse(webhookMessage('distribution', mounted).body.toString()).events
  assert.deepEqual(
    [mount.action, mount.target.fromRepository, mount.target.url],
    ['mount', 'a', 'http:///v2/b/blobs/d'],
  )
  const deleted = {
    ...event,
    type: 'dev.portolan.registry.delete.v1',
    data: { repository: 'b', digest: 'd' },
  }
  const [gone] = JSON.parse(webhookMessage('distribution', deleted).body.toString()).events
  assert.deepEqual(gone.target, { digest: 'd', repository: 'b' })
})

test('binary CloudEvents carry attributes as headers, escaped according to the HTTP binding', () => {
  const { headers, body } = webhookMessage('cloudevents-binary', { ...event, subject: 'ü "100%" €' })
  assert.equal(headers['ce-subject'], '%C3%BC%20%22100%25%22%20%E2%82%AC')
  assert.equal(headers['ce-id'], 'eu:1:2:3')
  assert.equal(headers['Content-Type'], 'application/json')
  assert.deepEqual(JSON.parse(body.toString()), event.data)
})

test('the signature is the documented one: HMAC-SHA256 over id, timestamp and body', () => {
  // The example from the libraries of the Standard Webhooks specification.
  const headers = signatureHeaders({
    id: 'msg_p5jXN8AQM9LWM0D4loKWxJek',
    secrets: ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'],
    nowMs: 1_614_265_330_000,
    body: Buffer.from('{"test": 2432232314}'),
  })
  assert.equal(headers['webhook-signature'], 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=')
})
