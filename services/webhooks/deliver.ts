// One delivery: the message in the subscription's format, signed, posted; and what its answer means.
//
// 2xx is delivered. Anything else waits and is tried again, twice as long each time with jitter, until the delivery is
// given up and parked. 410 Gone parks nothing sooner: a receiver that is being moved says all sorts of things.

import { type ClaimedDelivery, settleDelivery } from '#shared/db/webhook-deliveries.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { guardedPost } from '#shared/outbound/guarded-post.ts'
import type { Region } from '#shared/region.ts'
import type { Subscription } from '#shared/webhooks/subscriptions.ts'
import { signingSecrets, type Webhook } from '#shared/webhooks/webhook.ts'
import { signatureHeaders, webhookMessage } from '#shared/webhooks/webhook-message.ts'

/** However long it has failed, a receiver that comes back is found within this. */
const WAIT_SECONDS_MAX = 15 * 60
/** A header's value shorter than this is no secret, and masking it would garble answers. */
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
    // A process that stops leaves its deliveries to the next: they are not the receiver's failures.
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
    // Postgres keeps no NUL in text.
    answer: withoutSecrets(answer, one.webhook).replaceAll('\0', '').slice(0, 1_024),
  })
  region.metrics.webhook({ subscription: one.id, outcome: delivered ? 'delivered' : 'failed' })
  if (state === 'parked') {
    region.log.warn({ delivery: delivery.id, status }, 'a webhook delivery was given up and is parked')
  }
}

/** A receiver may answer with what it was sent (a 404 often names the path), and answers are kept in clear and listed. */
function withoutSecrets(answer: string, { url, headers, secret, previousSecret }: Webhook): string {
  const { pathname, search } = new URL(url)
  const previous = previousSecret === null ? [] : [previousSecret.secret]
  return [pathname, search.slice(1), ...Object.values(headers), secret, ...previous]
    .filter((value) => value.length >= SECRET_LENGTH_MIN)
    .reduce((text, value) => text.replaceAll(value, '***'), answer)
}

/** Full to half of twice the wait before. */
export function waitSeconds(first: number, attempts: number, random = Math.random): number {
  return Math.min(WAIT_SECONDS_MAX, first * 2 ** Math.min(attempts - 1, 20)) * (0.5 + random() / 2)
}
