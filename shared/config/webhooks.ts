// Settings of webhook deliveries.

import { flag, integer, isLoopback, type ListenAddress } from './parsers.ts'
import { DAY_SECONDS, optional, type Values, variable } from './variable.ts'

export const webhookVariables = Object.freeze({
  PORTOLAN_WEBHOOKS_ALLOW_PRIVATE: optional(
    flag,
    'Whether admins may allow webhooks to reach private and loopback addresses. If unset, they may only if ' +
      'authentication is off and the registry listens on loopback.',
  ),
  PORTOLAN_WEBHOOK_TIMEOUT_SECONDS: variable(
    integer({ min: 1, max: 120 }),
    '10',
    'How long a receiver may take to respond. A slow receiver delays only its own deliveries.',
  ),
  PORTOLAN_WEBHOOK_RETRY_SECONDS: variable(
    integer({ min: 1, max: 900 }),
    '5',
    'Wait before the first retry of a failed delivery. It doubles each time, up to 15 minutes.',
  ),
  PORTOLAN_WEBHOOK_GIVE_UP_SECONDS: variable(
    integer({ min: 1, max: 30 * DAY_SECONDS }),
    '86400',
    'How long a delivery is retried before it is parked. Parked deliveries can be sent again by hand.',
  ),
  PORTOLAN_WEBHOOK_KEEP_SECONDS: variable(
    integer({ min: 60, max: 400 * DAY_SECONDS }),
    '604800',
    'How long finished and parked deliveries are listed.',
  ),
})

export interface WebhooksConfig {
  readonly allowPrivate: boolean
  readonly timeoutSeconds: number
  readonly retrySeconds: number
  readonly giveUpSeconds: number
  readonly keepSeconds: number
}

export function webhooksConfig(
  values: Values<typeof webhookVariables>,
  context: { readonly listen: ListenAddress; readonly authenticated: boolean },
): WebhooksConfig {
  return {
    allowPrivate:
      values.PORTOLAN_WEBHOOKS_ALLOW_PRIVATE ?? (!context.authenticated && isLoopback(context.listen.host)),
    timeoutSeconds: values.PORTOLAN_WEBHOOK_TIMEOUT_SECONDS,
    retrySeconds: values.PORTOLAN_WEBHOOK_RETRY_SECONDS,
    giveUpSeconds: values.PORTOLAN_WEBHOOK_GIVE_UP_SECONDS,
    keepSeconds: values.PORTOLAN_WEBHOOK_KEEP_SECONDS,
  }
}
