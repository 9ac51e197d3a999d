// Sends one delivery: builds the message in the subscription's format, signs it, posts it, and interprets the response.
//
// A 2xx response means delivered. Any other result is retried with exponential backoff and jitter until the delivery is
// given up and parked. 410 Gone does not park a delivery early, because a receiver that is being moved can return any
// status.

import { type ClaimedDelivery, settleDelivery } from '#shared/db/webhook-deliveries.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { guardedPost } from '#shared/outbound/guarded-post.ts'
import type { Region } from '#shared/region.ts'
import type { Subscription } from '#shared/webhooks/subscriptions.ts'
import { signingSecrets, type Webhook } from '#shared/webhooks/webhook.ts'
import { signatureHeaders, webhookMessage } from '#shared/webhooks/webhook-message.ts'

/** The longest wait between attempts: a receiver that recovers gets its next attempt within this time. */
const WAIT_SECONDS_MAX = 15 * 60
/** Shorter values are not secrets, and masking them would garble the stored response. */
const SECRET_LENGTH_MIN = 6

export async function deliver(
  region: Region,
  options: { one: Subscription; delivery: ClaimedDelivery; signal: AbortSignal },
): Promise<void> {
  const { one, delivery, signal } = options
  const { config } = region
  const { headers, body } = webhookMessage(one.webhook.format, delivery.event as CloudEvent)
  const nowMs = Date.now()
  let status: number | null = null
  let answer: string
  try {
    const posted = await guardedPost({
      url: one.webhook.url,
      body,
      headers: {
        ...headers,
        'User-Agent': 'Portolan-Webhooks',
        ...signatureHeaders({ id: delivery.id, secrets: signingSecrets(one.webhook, nowMs), nowMs, body }),
      },
      ownHeaders: one.webhook.headers,
      allowPrivate: one.webhook.allowPrivate && config.webhooks.allowPrivate,
      timeoutMs: config.webhooks.timeoutSeconds * 1_000,
      signal,
    })
    status = posted.status
    answer = posted.text
  } catch (thrown) {
    // The process is stopping. Another sender takes over the delivery when its claim expires; this is not a failure.
    if (signal.aborted) return
    answer = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : 'failed'
  }
  const delivered = status !== null && status >= 200 && status < 300
  const state = await settleDelivery(region.db, {
    id: delivery.id,
    attempts: delivery.attempts,
    delivered,
    waitSeconds: waitSeconds(config.webhooks.retrySeconds, delivery.attempts),
    status,
    // Postgres text cannot contain NUL.
    answer: withoutSecrets(answer, one.webhook).replaceAll('\0', '').slice(0, 1_024),
  })
  region.metrics.webhook({ subscription: one.id, outcome: delivered ? 'delivered' : 'failed' })
  if (state === 'parked') {
    region.log.warn({ delivery: delivery.id, status }, 'a webhook delivery was given up and parked')
  }
}

/**
 * Masks secrets in a response. A receiver may echo the request (a 404 often names the path), and responses are stored
 * unencrypted and listed by the API.
 */
function withoutSecrets(answer: string, { url, headers, secret, previousSecret }: Webhook): string {
  const { pathname, search } = new URL(url)
  const previous = previousSecret === null ? [] : [previousSecret.secret]
  return [pathname, search.slice(1), ...Object.values(headers), secret, ...previous]
    .filter((value) => value.length >= SECRET_LENGTH_MIN)
    .reduce((text, value) => text.replaceAll(value, '***'), answer)
}

/** The wait before the next attempt in seconds: doubles with each attempt, with jitter from half to full. */
export function waitSeconds(first: number, attempts: number, random = Math.random): number {
  return Math.min(WAIT_SECONDS_MAX, first * 2 ** Math.min(attempts - 1, 20)) * (0.5 + random() / 2)
}
