// The webhooks service. It plans a delivery for each matching pair of event and subscription, and sends the deliveries
// that are due.
//
// Each subscription has its own concurrency limit, so a slow or dead receiver never delays other subscriptions. An
// ordered subscription sends only the oldest delivery of each repository at a time. Several instances of this service
// may run: they take turns planning, and each claims a delivery for a few seconds and renews the claim while the
// attempt lasts. If a sender dies or is frozen, another one sends its deliveries within seconds. A webhook that cannot
// be read sends nothing. The problem is logged once, and once more when the webhook is readable again or removed.

import {
  type ClaimedDelivery,
  claimDeliveries,
  dropOrphanDeliveries,
  forgetDeliveries,
  renewDeliveries,
} from '#shared/db/webhook-deliveries.ts'
import { startLoop } from '#shared/loop.ts'
import { pause } from '#shared/pause.ts'
import type { Region } from '#shared/region.ts'
import type { Service } from '#shared/service.ts'
import {
  planNext,
  type Subscription,
  subscriptions,
  type UnreadableWebhook,
} from '#shared/webhooks/subscriptions.ts'
import { deliver } from './deliver.ts'

const BUSY_PAUSE_MS = 15
const IDLE_PAUSE_MS = 100
const FAILURE_PAUSE_MS = 1_000
/** How long the service may use the previous version of a changed subscription. */
const SUBSCRIPTIONS_TTL_MS = 1_000
const AT_ONCE_PER_SUBSCRIPTION = 8
const AT_ONCE_MAX = 256
/** A claim expires this long after its last renewal: three renewals may be late or fail. */
const CLAIM_SECONDS = 6
const RENEW_EVERY_MS = 1_500
const FORGET_EVERY_MS = 60_000
const FORGET_BATCH = 5_000

export async function startWebhooks(region: Region): Promise<Service> {
  const stopping = new AbortController()
  const { signal } = stopping
  const flying = new Map<string, number>()
  const flights = new Map<Promise<void>, ClaimedDelivery>()
  let known: { all: readonly Subscription[]; readAtMs: number } = {
    all: [],
    readAtMs: Number.NEGATIVE_INFINITY,
  }

  /** Id -> problem of each webhook that was unreadable at the last check. */
  const told = new Map<string, string>()

  async function current(): Promise<readonly Subscription[]> {
    const nowMs = performance.now()
    if (nowMs - known.readAtMs > SUBSCRIPTIONS_TTL_MS) {
      const { readable, unreadable } = await subscriptions(region)
      tell(unreadable)
      known = { all: readable, readAtMs: nowMs }
    }
    return known.all
  }

  /** Logs one line for each change, not one for each check. */
  function tell(unreadable: readonly UnreadableWebhook[]): void {
    for (const { id, problem } of unreadable) {
      if (told.get(id) === problem) continue
      told.set(id, problem)
      region.log.error(
        { webhook: id, problem },
        'a webhook cannot be read and gets no deliveries: change or remove it',
      )
    }
    for (const id of told.keys()) {
      if (unreadable.some((one) => one.id === id)) continue
      told.delete(id)
      region.log.info({ webhook: id }, 'an unreadable webhook was repaired or removed')
    }
  }

  function launch(one: Subscription, delivery: ClaimedDelivery): void {
    flying.set(one.id, (flying.get(one.id) ?? 0) + 1)
    const flight = deliver(region, { one, delivery, signal })
      .catch((error: unknown) => {
        region.logFailure(
          error,
          `failed to record the result of delivery ${delivery.id}; it will be sent again`,
        )
      })
      .finally(() => {
        flying.set(one.id, (flying.get(one.id) ?? 1) - 1)
        flights.delete(flight)
      })
    flights.set(flight, delivery)
  }

  async function step(): Promise<boolean> {
    const looked = await planNext(region)
    const all = await current()
    const enabled = all.filter(({ webhook }) => webhook.enabled)
    const room = enabled
      .map(({ id, webhook }) => ({
        id,
        ordered: webhook.ordered,
        room: AT_ONCE_PER_SUBSCRIPTION - (flying.get(id) ?? 0),
      }))
      .filter(({ room: free }) => free > 0)
    if (room.length === 0 || flights.size >= AT_ONCE_MAX) return looked > 0
    const claimed = await claimDeliveries(region.db, { subscriptions: room, leaseSeconds: CLAIM_SECONDS })
    for (const delivery of claimed) {
      const one = enabled.find(({ id }) => id === delivery.subscription)
      if (one !== undefined) launch(one, delivery)
    }
    return looked > 0 || claimed.length > 0
  }

  async function work(): Promise<void> {
    while (!signal.aborted) {
      let pauseMs = IDLE_PAUSE_MS
      try {
        if (await step()) pauseMs = BUSY_PAUSE_MS
      } catch (thrown) {
        pauseMs = FAILURE_PAUSE_MS
        region.logFailure(thrown, 'failed to plan webhook deliveries; will retry')
      }
      await pause(pauseMs, { signal })
    }
  }

  const working = work()
  const renewing = startLoop({
    everyMs: RENEW_EVERY_MS,
    run: () => renewDeliveries(region.db, { claims: [...flights.values()], leaseSeconds: CLAIM_SECONDS }),
    onError: (error) => region.logFailure(error, 'failed to renew claims of deliveries'),
  })
  const forgetting = startLoop({
    everyMs: FORGET_EVERY_MS,
    async run() {
      const { keepSeconds } = region.config.webhooks
      await forgetDeliveries(region.db, { keepSeconds, limit: FORGET_BATCH })
      await dropOrphanDeliveries(region.db, FORGET_BATCH)
    },
    onError: (error) => region.logFailure(error, 'failed to remove old deliveries; will retry'),
  })
  return {
    name: 'webhooks',
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await working
      await Promise.all(flights.keys())
      await renewing[Symbol.asyncDispose]()
      await forgetting[Symbol.asyncDispose]()
    },
  }
}
