// Webhook subscriptions of a region: settings that admins write, and the deliveries that result from them.
//
// Stored webhooks are parsed when they are read. A webhook that does not parse, or whose secrets cannot be opened here,
// is reported and gets no deliveries. The others are not affected. Planning needs no secret, so a node without the
// right key loses no events: the deliveries wait for a node that can read the webhook.

import { randomUUID } from 'node:crypto'
import { type LoggedEvent, type LogPosition, logBounds, readEvents } from '#shared/db/event-log.ts'
import { moveOwnReader, ownReaderPosition } from '#shared/db/own-readers.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import { regionRow } from '#shared/db/region.ts'
import {
  deleteSetting,
  lockSetting,
  lockSettingKind,
  openFields,
  readSetting,
  readSettings,
  type SettingFields,
  writeSetting,
} from '#shared/db/settings.ts'
import type { Queryable } from '#shared/db/statement.ts'
import {
  dropDeliveries,
  lockPlanner,
  type PlannedDelivery,
  planDeliveries,
} from '#shared/db/webhook-deliveries.ts'
import { RegistryError } from '#shared/errors.ts'
import { toCloudEvent } from '#shared/events/cloud-event.ts'
import type { Region } from '#shared/region.ts'
import type { Sealer } from '#shared/secrets/sealer.ts'
import {
  changedFields,
  deliveryId,
  matchesWebhook,
  newWebhook,
  readStoredFilter,
  readStoredWebhook,
  type Webhook,
} from '#shared/webhooks/webhook.ts'

/** Enough for one per team. The planner checks each webhook for each event. */
const WEBHOOKS_MAX = 1_000
/** Maximum number of events that one call or run reads. */
const EVENTS_MAX = 500
const REPLAY_MAX = 10_000
const READER = 'webhooks'

/** What webhooks need: the database, the writer's identity, the key that seals their secrets, and their limits. */
export type WebhookContext = Pick<Region, 'name' | 'instance' | 'db' | 'sealer' | 'config'>

export interface Subscription {
  readonly id: string
  readonly webhook: Webhook
}

/** A stored webhook that gets no deliveries until it is changed or removed. */
export interface UnreadableWebhook {
  readonly id: string
  /** The reason, without any value. */
  readonly problem: string
}

export interface Subscriptions {
  readonly readable: readonly Subscription[]
  readonly unreadable: readonly UnreadableWebhook[]
}

/**
 * Returns every webhook. One that does not parse, or whose secrets do not open, is listed as unreadable and does not
 * affect the others.
 */
export async function subscriptions(region: WebhookContext): Promise<Subscriptions> {
  const all = (await readSettings(region.db, 'webhook')).map((setting) => parsed(region, setting))
  return {
    readable: all.filter((one) => 'webhook' in one),
    unreadable: all.filter((one) => 'problem' in one),
  }
}

/** @throws RegistryError NOT_FOUND */
export async function subscription(
  region: WebhookContext,
  id: string,
): Promise<Subscription | UnreadableWebhook> {
  return parsed(region, await requireSetting(region.db, id))
}

function parsed(region: WebhookContext, setting: SettingFields): Subscription | UnreadableWebhook {
  const { id } = setting
  const { fields, closed } = openFields(region.sealer, 'webhook', setting)
  const { found, problems } = readStoredWebhook(fields, closed)
  return problems.length === 0 ? { id, webhook: found as Webhook } : { id, problem: problems.join('; ') }
}

async function requireSetting(db: Queryable, id: string): Promise<SettingFields> {
  const setting = await readSetting(db, { kind: 'webhook', id })
  if (setting === undefined) throw new RegistryError('NOT_FOUND', { message: 'there is no such webhook' })
  return setting
}

/** @throws RegistryError TOOMANYREQUESTS at the limit of webhooks, DENIED without a key for secrets */
export async function addWebhook(
  region: WebhookContext,
  options: { given: Partial<Webhook>; provenance: Provenance },
): Promise<Subscription> {
  const webhook = newWebhook(options.given)
  requirePermitted(region, webhook)
  const writer = { origin: region.name, provenance: options.provenance, sealer: requireSealer(region) }
  const id = randomUUID()
  await region.db.transaction(async (transaction) => {
    await lockSettingKind(transaction, 'webhook')
    if ((await readSettings(transaction, 'webhook')).length >= WEBHOOKS_MAX) {
      throw new RegistryError('TOOMANYREQUESTS', {
        message: `a region may have at most ${WEBHOOKS_MAX} webhooks`,
      })
    }
    await writeSetting(transaction, writer, { kind: 'webhook', id, fields: { ...webhook }, isNew: true })
  })
  return { id, webhook }
}

/**
 * Changes some fields. A webhook that cannot be read is repaired by a change that sets every wrong field.
 * @throws RegistryError NOT_FOUND, REQUEST_INVALID if a field would still be wrong, DENIED
 */
export async function changeWebhook(
  region: WebhookContext,
  options: { id: string; change: Partial<Webhook>; provenance: Provenance },
): Promise<Subscription> {
  const { id, change, provenance } = options
  const writer = { origin: region.name, provenance, sealer: requireSealer(region) }
  return region.db.transaction(async (transaction) => {
    await lockSetting(transaction, { kind: 'webhook', id })
    const { fields, closed } = openFields(region.sealer, 'webhook', await requireSetting(transaction, id))
    const before = readStoredWebhook(fields, closed).found
    const changes = changedFields(before, change, Date.now())
    const { found, problems } = readStoredWebhook({ ...before, ...changes })
    if (problems.length > 0) {
      const message = `the webhook cannot be read (${problems.join('; ')}): change these fields too, or remove it`
      throw new RegistryError('REQUEST_INVALID', { message: message.slice(0, 256) })
    }
    const webhook = found as Webhook
    requirePermitted(region, webhook)
    await writeSetting(transaction, writer, { kind: 'webhook', id, fields: { ...changes }, isNew: false })
    return { id, webhook }
  })
}

/** Removes a webhook, readable or not, with its outstanding deliveries. @throws RegistryError NOT_FOUND */
export async function removeWebhook(
  region: WebhookContext,
  options: { id: string; provenance: Provenance },
): Promise<void> {
  const { id, provenance } = options
  await region.db.transaction(async (transaction) => {
    await lockSetting(transaction, { kind: 'webhook', id })
    await requireSetting(transaction, id)
    await deleteSetting(transaction, { origin: region.name, provenance }, { kind: 'webhook', id })
  })
  await dropDeliveries(region.db, id)
}

function requireSealer({ sealer }: WebhookContext): Sealer {
  if (sealer !== undefined) return sealer
  throw new RegistryError('DENIED', {
    message:
      'webhooks contain secrets, which are stored encrypted: set PORTOLAN_SECRETS_KEY on every node first',
  })
}

function requirePermitted(region: WebhookContext, webhook: Webhook): void {
  if (!webhook.allowPrivate || region.config.webhooks.allowPrivate) return
  throw new RegistryError('DENIED', {
    message: 'allowPrivate is not permitted here (PORTOLAN_WEBHOOKS_ALLOW_PRIVATE)',
  })
}

function planned(region: WebhookContext, id: string, event: LoggedEvent): PlannedDelivery {
  const cloudEvent = toCloudEvent(region.name, event)
  return {
    id: deliveryId(cloudEvent, id),
    subscription: id,
    repository: event.repository,
    event: cloudEvent,
  }
}

/**
 * One planning step: reads the next events and stores their deliveries together with its progress. Returns how many
 * events it read. Subscriptions are read after the events, so a subscription that existed before a push gets it. The
 * first step starts at the end of the log: earlier events are available through `replay`.
 */
export async function planNext(region: WebhookContext): Promise<number> {
  return region.db.transaction(async (transaction) => {
    if (!(await lockPlanner(transaction))) return 0
    const cursor = await ownReaderPosition(transaction, READER)
    if (cursor === undefined) {
      await moveOwnReader(transaction, READER, (await logBounds(transaction)).head)
      return 0
    }
    const events = await readEvents(transaction, { after: cursor, limit: EVENTS_MAX })
    const last = events.at(-1)
    if (last === undefined) return 0
    const filters = (await readSettings(transaction, 'webhook')).map(({ id, fields }) => ({
      id,
      filter: readStoredFilter(fields),
    }))
    // Lazy: all deliveries together may be a thousand times the size of the page.
    const deliveries = events.values().flatMap((event) =>
      filters
        .values()
        .filter(({ filter }) => filter !== undefined && matchesWebhook(filter, event))
        .map(({ id }) => planned(region, id, event)),
    )
    await planDeliveries(transaction, { deliveries, giveUpSeconds: region.config.webhooks.giveUpSeconds })
    await moveOwnReader(transaction, READER, last)
    return events.length
  })
}

/**
 * Plans the deliveries for the events after a position again, under the same ids. Continue at `next`.
 * @throws RegistryError NOT_FOUND, REQUEST_INVALID if the webhook's filter cannot be read
 */
export async function replay(
  region: WebhookContext,
  options: { id: string; after: LogPosition },
): Promise<{ planned: number; next: LogPosition }> {
  const { id } = options
  const filter = readStoredFilter((await requireSetting(region.db, id)).fields)
  if (filter === undefined) {
    throw new RegistryError('REQUEST_INVALID', { message: 'the webhook cannot be read: change or remove it' })
  }
  let next = options.after
  let count = 0
  for (let looked = 0; looked < REPLAY_MAX; ) {
    const events = await readEvents(region.db, { after: next, limit: EVENTS_MAX })
    const last = events.at(-1)
    if (last === undefined) break
    const deliveries = events
      .filter((event) => matchesWebhook(filter, event))
      .map((event) => planned(region, id, event))
    const { giveUpSeconds } = region.config.webhooks
    count += await planDeliveries(region.db, { deliveries, giveUpSeconds, again: true })
    next = { epoch: last.epoch, pos: last.pos }
    looked += events.length
  }
  return { planned: count, next }
}

/** Sends a delivery without a real event, to test whether the receiver responds. Returns its id. */
export async function sendTest(region: WebhookContext, id: string): Promise<string> {
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
