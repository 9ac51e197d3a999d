// Webhook subscriptions of a region: settings that admins write, and the deliveries that come of them.

import { randomUUID } from 'node:crypto'
import { moveCursor, readCursor } from '#shared/db/event-cursors.ts'
import { type LoggedEvent, type LogPosition, logBounds, readEvents } from '#shared/db/event-log.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import { regionRow } from '#shared/db/region.ts'
import { readSettings, writeSetting } from '#shared/db/settings.ts'
import type { Queryable } from '#shared/db/statement.ts'
import {
  dropDeliveries,
  lockPlanner,
  type PlannedDelivery,
  planDeliveries,
} from '#shared/db/webhook-deliveries.ts'
import { RegistryError } from '#shared/errors.ts'
import { toCloudEvent } from '#shared/events/cloud-event.ts'
import {
  changedFields,
  deliveryId,
  matchesWebhook,
  newWebhook,
  type Webhook,
} from '#shared/events/webhook.ts'
import type { Region } from '#shared/region.ts'

/** Enough for every team's; a planner looks at each for each event. */
const WEBHOOKS_MAX = 1_000
/** Events one call or run looks at. */
const EVENTS_MAX = 500
const REPLAY_MAX = 10_000
const READER = 'webhooks'

export interface Subscription {
  readonly id: string
  readonly webhook: Webhook
}

export async function subscriptions(region: Region, db: Queryable = region.db): Promise<Subscription[]> {
  const settings = await readSettings(db, 'webhook')
  return settings.map(({ id, fields }) => ({ id, webhook: fields as unknown as Webhook }))
}

/** @throws RegistryError NOT_FOUND */
export async function subscription(region: Region, id: string): Promise<Subscription> {
  const found = (await subscriptions(region)).find((one) => one.id === id)
  if (found === undefined) throw new RegistryError('NOT_FOUND', { message: 'there is no such webhook' })
  return found
}

export async function addWebhook(
  region: Region,
  options: { given: Partial<Webhook>; provenance: Provenance },
): Promise<Subscription> {
  const { given, provenance } = options
  const webhook = newWebhook(given)
  requirePermitted(region, webhook)
  if ((await subscriptions(region)).length >= WEBHOOKS_MAX) {
    throw new RegistryError('TOOMANYREQUESTS', { message: `a region has at most ${WEBHOOKS_MAX} webhooks` })
  }
  const id = randomUUID()
  await write(region, { id, fields: { ...webhook }, provenance })
  return { id, webhook }
}

export async function changeWebhook(
  region: Region,
  options: { id: string; change: Partial<Webhook>; provenance: Provenance },
): Promise<Subscription> {
  const { id, change, provenance } = options
  const { webhook } = await subscription(region, id)
  const fields = changedFields(webhook, change, Date.now())
  const changed = { ...webhook, ...fields }
  requirePermitted(region, changed)
  await write(region, { id, fields, provenance })
  return { id, webhook: changed }
}

export async function removeWebhook(
  region: Region,
  options: { id: string; provenance: Provenance },
): Promise<void> {
  const { id, provenance } = options
  const { webhook } = await subscription(region, id)
  await write(region, { id, fields: { ...webhook }, provenance, deleted: true })
  await dropDeliveries(region.db, id)
}

async function write(
  region: Region,
  options: { id: string; fields: Record<string, unknown>; provenance: Provenance; deleted?: boolean },
): Promise<void> {
  await writeSetting(region.db, { ...options, kind: 'webhook', origin: region.name })
}

function requirePermitted(region: Region, webhook: Webhook): void {
  if (!webhook.allowPrivate || region.config.webhooks.allowPrivate) return
  throw new RegistryError('DENIED', {
    message: 'allowPrivate is not permitted here (PORTOLAN_WEBHOOKS_ALLOW_PRIVATE)',
  })
}

function planned(region: Region, one: Subscription, event: LoggedEvent): PlannedDelivery {
  const cloudEvent = toCloudEvent(region.name, event)
  return {
    id: deliveryId(cloudEvent, one.id),
    subscription: one.id,
    repository: event.repository,
    event: cloudEvent,
  }
}

/**
 * One step of planning: looks at the next events and adds their deliveries, together with how far it came. Returns how
 * many events it looked at. Subscriptions are read after the events: one that was there before a push gets it. The first time it begins at the end of the log: what was before a region had webhooks is
 * there for `replay`.
 */
export async function planNext(region: Region): Promise<number> {
  return region.db.transaction(async (transaction) => {
    if (!(await lockPlanner(transaction))) return 0
    const cursor = await readCursor(transaction, READER)
    if (cursor === undefined) {
      await moveCursor(transaction, READER, (await logBounds(transaction)).head)
      return 0
    }
    const events = await readEvents(transaction, { after: cursor, limit: EVENTS_MAX })
    const last = events.at(-1)
    if (last === undefined) return 0
    const all = await subscriptions(region, transaction)
    // Lazily, one after the other: all of them together may be a thousand times the page.
    const deliveries = events.values().flatMap((event) =>
      all
        .values()
        .filter(({ webhook }) => matchesWebhook(webhook, event))
        .map((one) => planned(region, one, event)),
    )
    await planDeliveries(transaction, { deliveries, giveUpSeconds: region.config.webhooks.giveUpSeconds })
    await moveCursor(transaction, READER, last)
    return events.length
  })
}

/** Plans again what a subscription should have got behind a position: under the same ids. Goes on at `next`. */
export async function replay(
  region: Region,
  options: { one: Subscription; after: LogPosition },
): Promise<{ planned: number; next: LogPosition }> {
  const { one } = options
  let next = options.after
  let count = 0
  for (let looked = 0; looked < REPLAY_MAX; ) {
    const events = await readEvents(region.db, { after: next, limit: EVENTS_MAX })
    const last = events.at(-1)
    if (last === undefined) break
    const deliveries = events
      .filter((event) => matchesWebhook(one.webhook, event))
      .map((event) => planned(region, one, event))
    const { giveUpSeconds } = region.config.webhooks
    count += await planDeliveries(region.db, { deliveries, giveUpSeconds, again: true })
    next = { epoch: last.epoch, pos: last.pos }
    looked += events.length
  }
  return { planned: count, next }
}

/** A delivery that nothing happened for, to see whether the receiver answers. Returns its id. */
export async function sendTest(region: Region, id: string): Promise<string> {
  const { epoch } = await regionRow(region.db)
  const event = toCloudEvent(region.name, {
    epoch,
    pos: 0,
    shard: 0,
    seq: 0,
    repository: 'test/test',
    type: 'dev.portolan.registry.push.v1',
    subject: 'test/test:test',
    payload: { repository: 'test/test', tags: ['test'], test: true },
    traceparent: null,
    actor: '',
    request: {},
    instance: region.instance,
    time: new Date(),
  })
  const delivery = { id: `test:${randomUUID()}.${id}`, subscription: id, repository: 'test/test', event }
  await planDeliveries(region.db, { deliveries: [delivery], giveUpSeconds: 60 })
  return delivery.id
}
