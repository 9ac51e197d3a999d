// The memory of the planner is bounded, however large the events are and however many subscriptions match.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { one, type Queryable, statement } from '#shared/db/statement.ts'
import { addWebhook, planNext } from '#shared/webhooks/subscriptions.ts'
import { fillLog } from '../../support/log-writer.ts'
import { provenance } from '../../support/push.ts'
import { testRegion } from '../../support/region.ts'

const SUBSCRIPTIONS = 20
const counted = statement<{ deliveries: number; largest: number }>(
  'test-deliveries',
  `select count(*) as deliveries, max(octet_length(event::text)) as largest from webhook_delivery`,
)

test('a page of large events for many subscriptions is planned in statements of about 1 MiB', async (t) => {
  const { region } = await testRegion(t)
  await planNext(region)
  for (let n = 0; n < SUBSCRIPTIONS; n++) {
    const given = { url: 'https://hook.example/', format: 'cloudevents' as const }
    await addWebhook(region, { given, provenance })
  }
  await fillLog(region, { count: 50, filler: 20_000 })
  await fillLog(region, { count: 5, filler: 1_700_000 })
  const lengths: number[] = []
  const transaction = region.db.transaction.bind(region.db)
  const watched = (db: Queryable): Queryable => ({
    rows(asked, values) {
      if (asked.name === 'plan-deliveries') lengths.push(String(values?.deliveries).length)
      return db.rows(asked, values)
    },
  })
  region.db.transaction = (work) => transaction((db) => work(watched(db)))
  while ((await planNext(region)) > 0);
  const { deliveries, largest } = await one(region.db, counted)
  t.diagnostic(`${lengths.length} statements, the longest of ${Math.max(...lengths)} characters`)
  assert.equal(deliveries, 55 * SUBSCRIPTIONS)
  assert.ok(Math.max(...lengths) < 1.1 * 1024 * 1024)
  assert.ok(largest < 128 * 1024, 'larger events are abridged')
})
