// Builds what a webhook sends: one event in the subscription's format, signed according to Standard Webhooks
// (https://github.com/standard-webhooks/standard-webhooks: HMAC-SHA256 over id, timestamp and body). Pure.

import { createHmac } from 'node:crypto'
import type { CloudEvent } from '../events/cloud-event.ts'
import type { WebhookFormat } from './webhook.ts'

export interface WebhookMessage {
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

export function webhookMessage(format: WebhookFormat, event: CloudEvent): WebhookMessage {
  switch (format) {
    case 'cloudevents':
      return message('application/cloudevents+json; charset=utf-8', event)
    case 'cloudevents-binary': {
      const { data, datacontenttype, ...attributes } = event
      const { headers, body } = message(datacontenttype, data)
      const named = Object.entries(attributes).map(([name, value]) => [
        `ce-${name}`,
        headerValue(String(value)),
      ])
      return { headers: { ...headers, ...Object.fromEntries(named) }, body }
    }
    case 'distribution':
      return message('application/vnd.docker.distribution.events.v2+json', {
        events: distributionEvents(event),
      })
  }
}

function message(type: string, content: unknown): WebhookMessage {
  return { headers: { 'Content-Type': type }, body: Buffer.from(JSON.stringify(content)) }
}

/** CloudEvents HTTP binding, 3.1.3.2: everything but printable ASCII is percent-encoded. */
function headerValue(text: string): string {
  return text.toWellFormed().replace(/[^\x21-\x7e]|["%]/gu, encodeURIComponent)
}

/** The names that distribution uses for actions. Every other action is a push. */
const ACTIONS: Readonly<Record<string, string>> = Object.freeze({
  delete: 'delete',
  pull: 'pull',
  'blob.mounted': 'mount',
})

/** distribution's notifications.Envelope, version 2: one event per tag of a push. */
function distributionEvents(event: CloudEvent): object[] {
  const data = event.data as {
    repository?: string
    digest?: string
    mediaType?: string
    size?: number
    tags?: string[]
    tag?: string
    from?: string
    actor?: { name?: string }
    request?: { id?: string; addr?: string; host?: string; method?: string; userAgent?: string }
    instance?: string
  }
  const kind = event.type.replace(/^dev\.portolan\.registry\.|\.v1$/g, '')
  const action = ACTIONS[kind] ?? 'push'
  const isBlob = kind.startsWith('blob.')
  const repository = data.repository ?? event.partitionkey
  const host = data.request?.host ?? ''
  const tags = data.tags !== undefined && data.tags.length > 0 ? data.tags : [data.tag]
  return tags.map((tag, index) => ({
    id: tags.length === 1 ? event.id : `${event.id}:${index}`,
    timestamp: event.time,
    action,
    target: {
      ...(action !== 'delete' && {
        mediaType: isBlob ? 'application/octet-stream' : data.mediaType,
        size: data.size,
        length: data.size,
        url: `http://${host}/v2/${repository}/${isBlob ? 'blobs' : 'manifests'}/${data.digest}`,
      }),
      ...(data.digest !== undefined && { digest: data.digest }),
      repository,
      ...(data.from !== undefined && { fromRepository: data.from }),
      ...(tag !== undefined && { tag }),
    },
    request: {
      id: data.request?.id,
      addr: data.request?.addr,
      host,
      method: data.request?.method,
      useragent: data.request?.userAgent,
    },
    actor: { name: data.actor?.name },
    source: { addr: host, instanceID: data.instance },
  }))
}

/** Returns the three headers that a receiver verifies, with one signature for each valid secret. */
export function signatureHeaders(options: {
  id: string
  secrets: readonly string[]
  nowMs: number
  body: Buffer
}): Record<string, string> {
  const { id, secrets, nowMs, body } = options
  const timestamp = String(Math.floor(nowMs / 1_000))
  const signatures = secrets.map((secret) => {
    const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64')
    return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64')}`
  })
  return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures.join(' ') }
}
