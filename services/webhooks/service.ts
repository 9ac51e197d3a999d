// Webhooks: plans a delivery for each event and subscription that match, and sends what is due.
//
// Each subscription has room of its own, so one that is slow or dead never delays another; of an ordered one only the
// oldest delivery of each repository is under way. Several of these services may run: planning takes turns, and each
// delivery is claimed for a few seconds and again while its attempt lasts: what a sender that died or is frozen had taken
// is sent by another within seconds. A webhook that cannot be read gets nothing sent and is told once, with a second line
// when it can be read again or is gone.

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
/** How long a changed subscription may still be used as it was. */
const SUBSCRIPTIONS_TTL_MS = 1_000
const AT_ONCE_PER_SUBSCRIPTION = 8
const AT_ONCE_MAX = 256
/** A claim ends so long after its sender was last heard of: three renewals may be late or fail. */
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

  /** Id -> problem, of webhooks that could not be read the last time. */
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

  /** A line for each change, not for each look. */
  function tell(unreadable: readonly UnreadableWebhook[]): void {
    for (const { id, problem } of unreadable) {
      if (told.get(id) === problem) continue
      told.set(id, problem)
      region.log.error(
        { webhook: id, problem },
        'a webhook cannot be read and gets nothing: change or remove it',
      )
    }
    for (const id of told.keys()) {
      if (unreadable.some((one) => one.id === id)) continue
      told.delete(id)
      region.log.info({ webhook: id }, 'a webhook that could not be read is mended or gone')
    }
  }

  function launch(one: Subscription, delivery: ClaimedDelivery): void {
    flying.set(one.id, (flying.get(one.id) ?? 0) + 1)
    const flight = deliver(region, { one, delivery, signal })
      .catch((error: unknown) => {
        region.logFailure(error, `the delivery ${delivery.id} could not be settled; it will be sent again`)
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
        region.logFailure(thrown, 'planning webhooks failed; it will be tried again')
      }
      await pause(pauseMs, { signal })
    }
  }

  const working = work()
  const renewing = startLoop({
    everyMs: RENEW_EVERY_MS,
    run: () => renewDeliveries(region.db, { claims: [...flights.values()], leaseSeconds: CLAIM_SECONDS }),
    onError: (error) => region.logFailure(error, 'claims of deliveries could not be renewed'),
  })
  const forgetting = startLoop({
    everyMs: FORGET_EVERY_MS,
    async run() {
      const { keepSeconds } = region.config.webhooks
      await forgetDeliveries(region.db, { keepSeconds, limit: FORGET_BATCH })
      await dropOrphanDeliveries(region.db, FORGET_BATCH)
    },
    onError: (error) =>
      region.logFailure(error, 'old deliveries could not be removed; it will be tried again'),
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
