// Databases from before secrets were encrypted, databases encrypted with an older key, and keys that are lost.
// tests: shared/db/stored-secrets.ts

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import pg from 'pg'
import { migrate, readMigrations } from '#shared/db/migrate.ts'
import { sealStoredSecrets } from '#shared/db/seal-stored-secrets.ts'
import { connectionOptions } from '#shared/db/session.ts'
import { subscription, subscriptions } from '#shared/webhooks/subscriptions.ts'
import { moveOnce } from '../../../services/relay/service.ts'
import { accountsNode } from '../../support/accounts.ts'
import { eventually } from '../../support/eventually.ts'
import { everyRow } from '../../support/every-row.ts'
import { ociClient } from '../../support/oci-client.ts'
import { emptyDatabase, execute } from '../../support/postgres.ts'
import { TEST_SECRETS_KEY, testRegion } from '../../support/region.ts'

const NEW_KEY = 'new-secrets-key-0123456789-0123456789'
const ID = '00000000-0000-4000-8000-000000000001'
const SECRET = `whsec_${Buffer.alloc(32, 3).toString('base64')}`
const PREVIOUS = `whsec_${Buffer.alloc(32, 4).toString('base64')}`
const PLANTED = ['planted-in-url', 'planted-in-header', 'planted-private-half', SECRET, PREVIOUS]

const FIELDS = {
  url: 'https://hook.example/planted-in-url',
  types: [],
  repositories: [],
  format: 'cloudevents',
  headers: { Authorization: 'Bearer planted-in-header' },
  secret: SECRET,
  previousSecret: { secret: PREVIOUS, untilMs: 1 },
  ordered: false,
  enabled: true,
  allowPrivate: false,
}

/** A webhook and a token key as the previous release wrote them, with events in the outbox and in the log. */
async function plantInClear(url: string): Promise<void> {
  const rows = Object.entries(FIELDS).map(
    ([field, value]) => `('webhook', '${ID}', '${field}', '${JSON.stringify(value)}'::jsonb, 1, 'eu')`,
  )
  const event = `'dev.portolan.registry.setting.set.v1', 'webhook/${ID}#' || field,
    jsonb_build_object('kind', kind, 'id', id, 'field', field, 'value', value, 'deleted', false)`
  await execute(
    url,
    `insert into setting (kind, id, field, value, h, origin) values ${rows.join(', ')};
     insert into outbox (repository, shard, type, subject, payload, actor, request, instance)
     select '', 0, ${event}, '', '{}', '' from setting;
     insert into event_log (epoch, pos, shard, seq, outbox_id, repository, type, subject, payload, actor, request, instance, time)
     select 1, n, 0, n, -n, '', ${event}, '', '{}', '', now()
     from (select *, row_number() over () as n from setting) as s;
     insert into event_head (epoch, shard, seq) select 1, shard, case when shard in (-1, 0) then 10 else 0 end
     from generate_series(-1, 7) as shard;
     insert into signing_key (kid, private_jwk, public_jwk, created_at, signs_from, retires_at)
     values ('old', '{"kty": "EC", "d": "planted-private-half"}', '{"kty": "EC"}', now() - interval '40 days',
       now() - interval '39 days', now() + interval '1 hour')`,
  )
}

/** A database of the release before this migration, filled by it. */
async function olderDatabase(t: TestContext): Promise<string> {
  const url = await emptyDatabase(t)
  const migrations = await readMigrations()
  await migrate(
    url,
    'eu',
    migrations.filter(({ number }) => number < 7),
  )
  await plantInClear(url)
  return url
}

async function leaks(url: string): Promise<string[]> {
  const text = await everyRow(url)
  return PLANTED.filter((secret) => text.includes(secret))
}

test('the first start seals what a database holds in clear, its events too, and what it means stays the same', async (t) => {
  const url = await olderDatabase(t)
  assert.deepEqual(await leaks(url), PLANTED, 'the planted values are found when they are there')
  const { region, logLines } = await testRegion(t, { env: { PORTOLAN_DATABASE_URL: url } })
  assert.deepEqual(await leaks(url), [])
  assert.ok(logLines.some((line) => line.includes('secrets in the database were encrypted')))
  assert.deepEqual(await subscription(region, ID), { id: ID, webhook: FIELDS })
  while ((await moveOnce(region)) > 0);
  assert.deepEqual(await leaks(url), [], 'also what was in the outbox')
  const { logLines: second } = await testRegion(t, { env: { PORTOLAN_DATABASE_URL: url } })
  assert.ok(!second.some((line) => line.includes('were encrypted')), 'a second start has nothing to do')
})

test('while a node of an older release runs nothing is sealed; afterwards it cannot start again', async (t) => {
  const url = await olderDatabase(t)
  const older = new pg.Client(connectionOptions(url))
  await older.connect()
  await older.query('select pg_advisory_lock_shared(7065812, 4)')
  const { region, logLines } = await testRegion(t, { env: { PORTOLAN_DATABASE_URL: url } })
  assert.ok(logLines.some((line) => line.includes('while a node of an older release runs')))
  assert.deepEqual(await leaks(url), PLANTED, 'the older node can still read them')
  assert.deepEqual(await subscription(region, ID), { id: ID, webhook: FIELDS }, 'and so can this one')
  await older.end()
  await sealStoredSecrets(region)
  assert.deepEqual(await leaks(url), [])
  const migrations = await readMigrations()
  await assert.rejects(migrate(url, 'eu', migrations.slice(0, 4)), /newer Portolan.*cannot work with/)
})

test('secrets in clear and no key to seal them: the start is refused in one sentence', async (t) => {
  const url = await olderDatabase(t)
  const open = testRegion(t, { env: { PORTOLAN_DATABASE_URL: url, PORTOLAN_SECRETS_KEY: '' } })
  await assert.rejects(open, /has to be encrypted|have to be encrypted: set PORTOLAN_SECRETS_KEY/)
})

test('without a key a database that holds no secret works; webhooks and accounts say what they need', async (t) => {
  const { region } = await testRegion(t, { env: { PORTOLAN_SECRETS_KEY: '' } })
  assert.equal(region.sealer, undefined)
  await assert.rejects(
    accountsNode(t, { env: { PORTOLAN_SECRETS_KEY: '' } }),
    /PORTOLAN_AUTH=accounts.*PORTOLAN_SECRETS_KEY/s,
  )
})

test('a new first key seals everything anew at the next start; the old one can then go', async (t) => {
  const url = await olderDatabase(t)
  const start = (keys: string) =>
    testRegion(t, { env: { PORTOLAN_DATABASE_URL: url, PORTOLAN_SECRETS_KEY: keys } })
  const first = await start(TEST_SECRETS_KEY)
  const oldPrefix = first.region.sealer?.prefix ?? ''
  assert.ok((await everyRow(url)).includes(oldPrefix))
  await start(`${NEW_KEY},${TEST_SECRETS_KEY}`)
  assert.ok(!(await everyRow(url)).includes(oldPrefix), 'nothing is left under the old key')
  const { region } = await start(NEW_KEY)
  assert.deepEqual(await subscription(region, ID), { id: ID, webhook: FIELDS })
})

test('a lost key stops nobody: the webhook is told, tokens are signed by a new key, old ones still verify', async (t) => {
  const before = await accountsNode(t)
  await plantInClear(before.region.databaseUrl)
  // The planted private half is a word, and no node could sign with it.
  await execute(before.region.databaseUrl, `delete from signing_key`)
  await sealStoredSecrets(before.region)
  const token = await before.bearer(['repository:a:pull,push'])
  const after = await accountsNode(t, { sharing: before, env: { PORTOLAN_SECRETS_KEY: NEW_KEY } })
  assert.match(
    JSON.stringify(await subscription(after.region, ID)),
    /secret cannot be opened.*PORTOLAN_SECRETS_KEY lacks/,
  )
  const fresh = await after.bearer(['repository:a:pull,push'])
  const accepted = async (url: string, authorization: string) =>
    (await ociClient(url, authorization).request('POST', '/v2/a/blobs/uploads/')).status === 202
  assert.ok(await accepted(before.url, token))
  assert.ok(await accepted(after.url, token), 'the public half is not sealed')
  assert.ok(await accepted(after.url, fresh))
  // If key ids are unknown to a node, it reads the keys every five seconds.
  await eventually('the other node to know the new key', () => accepted(before.url, fresh), 20_000)
  const told = after.logLines.filter((line) => line.includes('signing key cannot be opened'))
  assert.ok(told.length >= 1 && new Set(told.map((line) => JSON.parse(line).kid)).size === told.length)
})

test('a value that was moved to another webhook does not open there', async (t) => {
  const { region } = await testRegion(t)
  await plantInClear(region.databaseUrl)
  await sealStoredSecrets(region)
  const other = '00000000-0000-4000-8000-000000000002'
  await execute(
    region.databaseUrl,
    `insert into setting (kind, id, field, value, h, origin) select kind, '${other}', field, value, h, origin from setting`,
  )
  assert.match(JSON.stringify(await subscription(region, other)), /moved here from another place/)
  assert.deepEqual(await subscription(region, ID), { id: ID, webhook: FIELDS })
})

test('webhooks from before have an existence register: those half deleted are listed, those deleted are gone', async (t) => {
  const url = await emptyDatabase(t)
  const migrations = await readMigrations()
  await migrate(
    url,
    'eu',
    migrations.filter(({ number }) => number < 7),
  )
  await plantInClear(url)
  const [half, gone] = ['00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000003']
  await execute(
    url,
    `insert into setting (kind, id, field, value, h, origin, deleted)
     select kind, id, field, case when not deleted then value end, h, origin, deleted
     from (select s.kind, other.id, field, value, h, origin, other.id = '${gone}' or field = 'url' as deleted
       from setting as s cross join (values ('${half}'), ('${gone}')) as other (id)) as planted`,
  )
  const { region } = await testRegion(t, { env: { PORTOLAN_DATABASE_URL: url } })
  const { readable, unreadable } = await subscriptions(region)
  assert.deepEqual(readable, [{ id: ID, webhook: FIELDS }])
  assert.deepEqual(unreadable, [{ id: half, problem: 'url is missing' }])
  const rows = await region.db.rows({
    name: 'test-existence',
    text: `select id, deleted from setting where field = '' order by id`,
    parameters: [],
  })
  assert.deepEqual(rows, [
    { id: ID, deleted: false },
    { id: half, deleted: false },
    { id: gone, deleted: true },
  ])
})
