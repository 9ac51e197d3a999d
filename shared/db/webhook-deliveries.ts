// Deliveries of webhooks. They are planned together with the cursor that says how far events were read, claimed for a
// while by a sender, and settled with the result. A claim that is never settled expires, and the delivery is sent again
// under the same id.

import { maybe, one, type Queryable, statement } from './statement.ts'

export interface PlannedDelivery {
  readonly id: string
  readonly subscription: string
  readonly repository: string
  readonly event: unknown
}

export interface ClaimedDelivery extends PlannedDelivery {
  /** Includes this attempt. */
  readonly attempts: number
}

const lock = statement<{ held: boolean }>(
  'planner-lock',
  `select pg_try_advisory_xact_lock(7065813, hashtext('webhook-planner')) as held`,
)

/** Returns true if this transaction may plan, and false if another planner is running. */
export async function lockPlanner(transaction: Queryable): Promise<boolean> {
  return (await one(transaction, lock)).held
}

const plan = statement<{ id: string }>(
  'plan-deliveries',
  `insert into webhook_delivery (id, subscription, repository, event, give_up_at)
   select d.value ->> 'id', (d.value ->> 'subscription')::uuid, d.value ->> 'repository', d.value -> 'event',
     clock_timestamp() + make_interval(secs => :give_up_seconds)
   from jsonb_array_elements(:deliveries::jsonb) with ordinality as d (value, place)
   order by d.place
   on conflict (id) do update
     -- Starts over. The result of an attempt that is under way must not settle the new one.
     set state = 'waiting', attempts = 0, leased_until = '-infinity', due_at = clock_timestamp(),
       give_up_at = excluded.give_up_at
     where :again::bool
   returning id`,
)

/** Maximum number of characters of one statement's deliveries. One delivery alone may be longer. */
const PLAN_CHARACTERS_MAX = 1024 * 1024

/**
 * Adds deliveries, in order. An existing one stays unchanged, or is sent again with `again`. Returns the number of
 * deliveries. They are taken one by one and sent in statements of about 1 MiB, so a page of events for a thousand
 * subscriptions is never in memory as a whole.
 */
export async function planDeliveries(
  db: Queryable,
  options: { deliveries: Iterable<PlannedDelivery>; giveUpSeconds: number; again?: boolean },
): Promise<number> {
  const { deliveries, giveUpSeconds, again = false } = options
  let planned = 0
  let texts: string[] = []
  let characters = 0
  const send = async () => {
    if (texts.length === 0) return
    const parameters = { deliveries: `[${texts.join(',')}]`, give_up_seconds: giveUpSeconds, again }
    planned += (await db.rows(plan, parameters)).length
    texts = []
    characters = 0
  }
  for (const delivery of deliveries) {
    const text = JSON.stringify(delivery)
    if (characters + text.length > PLAN_CHARACTERS_MAX) await send()
    texts.push(text)
    characters += text.length
  }
  await send()
  return planned
}

const claim = statement<ClaimedDelivery>(
  'claim-deliveries',
  `with due as (
     select picked.id
     from unnest(:subscriptions::uuid[], :room::int[], :ordered::bool[]) as s (subscription, room, ordered)
     cross join lateral (
       select d.id from webhook_delivery as d
       where d.subscription = s.subscription and d.state = 'waiting'
         and d.due_at <= clock_timestamp() and d.leased_until < clock_timestamp()
         and (not s.ordered or not exists (
           select from webhook_delivery as earlier
           where earlier.subscription = d.subscription and earlier.state = 'waiting'
             and earlier.repository = d.repository and earlier.number < d.number))
       order by d.number
       limit s.room
       for update skip locked
     ) as picked
   )
   update webhook_delivery as d
   set leased_until = clock_timestamp() + make_interval(secs => :lease_seconds), attempts = d.attempts + 1
   from due where d.id = due.id
   returning d.id, d.subscription, d.repository, d.event, d.attempts`,
)

/**
 * Claims what is due: for each subscription as much as it has room for, and for an ordered one the oldest per
 * repository.
 */
export async function claimDeliveries(
  db: Queryable,
  options: {
    subscriptions: readonly { id: string; room: number; ordered: boolean }[]
    leaseSeconds: number
  },
): Promise<ClaimedDelivery[]> {
  const { subscriptions, leaseSeconds } = options
  return db.rows(claim, {
    subscriptions: subscriptions.map(({ id }) => id),
    room: subscriptions.map(({ room }) => room),
    ordered: subscriptions.map(({ ordered }) => ordered),
    lease_seconds: leaseSeconds,
  })
}

const renew = statement<{ id: string }>(
  'renew-deliveries',
  `update webhook_delivery as d
   set leased_until = clock_timestamp() + make_interval(secs => :lease_seconds)
   from unnest(:ids::text[], :attempts::int[]) as held (id, attempts)
   where d.id = held.id and d.attempts = held.attempts and d.state = 'waiting'
   returning d.id`,
)

/**
 * Extends claims whose attempts are still under way. If another sender has claimed a delivery since, that claim stays.
 */
export async function renewDeliveries(
  db: Queryable,
  options: { claims: readonly { id: string; attempts: number }[]; leaseSeconds: number },
): Promise<void> {
  const { claims, leaseSeconds } = options
  if (claims.length === 0) return
  await db.rows(renew, {
    ids: claims.map(({ id }) => id),
    attempts: claims.map(({ attempts }) => attempts),
    lease_seconds: leaseSeconds,
  })
}

const settle = statement<{ state: string }>(
  'settle-delivery',
  `update webhook_delivery
   set state = case when :delivered::bool then 'delivered'
         when clock_timestamp() + make_interval(secs => :wait_seconds::float8) > give_up_at then 'parked' else 'waiting' end,
     due_at = clock_timestamp() + make_interval(secs => :wait_seconds::float8),
     leased_until = '-infinity', status = :status, answer = :answer, attempted_at = clock_timestamp()
   where id = :id and attempts = :attempts
   returning state`,
)

/** Records the result of an attempt. Returns the new state, or undefined if another attempt has begun meanwhile. */
export async function settleDelivery(
  db: Queryable,
  options: {
    id: string
    attempts: number
    delivered: boolean
    /** Seconds until the next attempt. */
    waitSeconds: number
    status: number | null
    answer: string
  },
): Promise<string | undefined> {
  const { waitSeconds, ...rest } = options
  return (await maybe(db, settle, { ...rest, wait_seconds: waitSeconds }))?.state
}

export interface ListedDelivery {
  readonly id: string
  readonly number: number
  readonly repository: string
  readonly type: string
  readonly state: string
  readonly attempts: number
  readonly status: number | null
  readonly answer: string | null
  readonly created_at: Date
  readonly attempted_at: Date | null
  readonly due_at: Date
}

const list = statement<ListedDelivery>(
  'list-deliveries',
  `select id, number, repository, event ->> 'type' as type, state, attempts, status, answer, created_at, attempted_at, due_at
   from webhook_delivery
   where subscription = :subscription::uuid and number < :before and (:state::text is null or state = :state)
   order by number desc limit :limit`,
)

/** Returns a subscription's deliveries, newest first. */
export async function listDeliveries(
  db: Queryable,
  options: { subscription: string; before: number; state: string | null; limit: number },
): Promise<ListedDelivery[]> {
  return db.rows(list, options)
}

const again = statement<{ id: string }>(
  'redeliver',
  `update webhook_delivery
   set state = 'waiting', due_at = clock_timestamp(),
     give_up_at = clock_timestamp() + make_interval(secs => :give_up_seconds)
   where id in (
     select id from webhook_delivery
     where subscription = :subscription::uuid and state <> 'waiting'
       and (:id::text is null or id = :id) and (:state::text is null or state = :state)
       and number between :first and :last
     order by number limit :limit for update skip locked)
   returning id`,
)

/** Sends up to `limit` settled deliveries again: one by id, or those of a state in a range of numbers. */
export async function redeliver(
  db: Queryable,
  options: {
    subscription: string
    id: string | null
    state: string | null
    first: number
    last: number
    giveUpSeconds: number
    limit: number
  },
): Promise<number> {
  const { giveUpSeconds, ...rest } = options
  return (await db.rows(again, { ...rest, give_up_seconds: giveUpSeconds })).length
}

const forget = statement<{ id: string }>(
  'forget-deliveries',
  `delete from webhook_delivery where id in (
     select id from webhook_delivery
     where state <> 'waiting' and attempted_at < clock_timestamp() - make_interval(secs => :keep_seconds)
     order by attempted_at limit :limit for update skip locked)
   returning id`,
)

/** Removes up to `limit` settled deliveries that are older than `keepSeconds`. */
export async function forgetDeliveries(
  db: Queryable,
  options: { keepSeconds: number; limit: number },
): Promise<number> {
  return (await db.rows(forget, { keep_seconds: options.keepSeconds, limit: options.limit })).length
}

const drop = statement<never>(
  'drop-deliveries',
  `delete from webhook_delivery where id in (
     select id from webhook_delivery where subscription = :subscription::uuid and state = 'waiting'
     order by number for update)`,
)

/** Removes the outstanding deliveries of a subscription that was removed. */
export async function dropDeliveries(db: Queryable, subscription: string): Promise<void> {
  await db.rows(drop, { subscription })
}

const dropOrphans = statement<{ id: string }>(
  'drop-orphan-deliveries',
  `delete from webhook_delivery where id in (
     select d.id from webhook_delivery as d
     where d.state = 'waiting' and d.subscription in (
       select waiting.subscription
       from (select distinct subscription from webhook_delivery where state = 'waiting') as waiting
       where not exists (
         select from setting as s
         where s.kind = 'webhook' and s.id = waiting.subscription::text and s.field <> '' and not s.deleted))
     limit :limit)
   returning id`,
)

/**
 * Removes up to `limit` deliveries that wait for a subscription which no longer exists, and returns their number. Such
 * deliveries were planned while it was removed, or left by a process that ended between the two steps.
 */
export async function dropOrphanDeliveries(db: Queryable, limit: number): Promise<number> {
  return (await db.rows(dropOrphans, { limit })).length
}

export interface WaitingDeliveries {
  readonly subscription: string
  readonly waiting: number
  readonly oldestSeconds: number
}

const waiting = statement<{ subscription: string; waiting: number; oldest_seconds: number }>(
  'waiting-deliveries',
  `select subscription, count(*) as waiting,
     extract(epoch from clock_timestamp() - min(created_at))::float8 as oldest_seconds
   from webhook_delivery where state = 'waiting' group by subscription order by subscription`,
)

/** Returns, for each subscription with waiting deliveries, how many wait and for how long the oldest has waited. */
export async function waitingDeliveries(db: Queryable): Promise<WaitingDeliveries[]> {
  const rows = await db.rows(waiting)
  return rows.map(({ oldest_seconds, ...row }) => ({ ...row, oldestSeconds: oldest_seconds }))
}
