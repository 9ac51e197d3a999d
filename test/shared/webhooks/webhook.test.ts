import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  changedFields,
  matchesWebhook,
  newWebhook,
  parseWebhook,
  readStoredFilter,
  readStoredWebhook,
  signingSecrets,
} from '#shared/webhooks/webhook.ts'

const hook = (given: object) => newWebhook(parseWebhook({ url: 'https://example.com/', ...given }))
const push = { type: 'dev.portolan.registry.push.v1', repository: 'team/app' }

test('a webhook gets pushes and deletes by default, within what its format can express', () => {
  assert.ok(matchesWebhook(hook({}), push))
  assert.ok(!matchesWebhook(hook({}), { ...push, type: 'dev.portolan.registry.tag.set.v1' }))
  const tags = hook({ types: ['tag.set'], format: 'cloudevents' })
  assert.ok(matchesWebhook(tags, { ...push, type: 'dev.portolan.registry.tag.set.v1' }))
  assert.ok(
    !matchesWebhook(hook({ types: ['tag.set'] }), { ...push, type: 'dev.portolan.registry.tag.set.v1' }),
  )
  assert.ok(matchesWebhook(hook({ repositories: ['other', 'team/*'] }), push))
  assert.ok(!matchesWebhook(hook({ repositories: ['team'] }), push))
  assert.ok(!matchesWebhook(hook({ enabled: false }), push))
  const all = hook({ types: ['setting.set'], format: 'cloudevents' })
  assert.ok(
    !matchesWebhook(all, { type: 'dev.portolan.registry.setting.set.v1', repository: '' }),
    'secrets stay',
  )
})

test('a replaced secret also signs for one more day', () => {
  const before = hook({})
  const secret = `whsec_${Buffer.alloc(24, 1).toString('base64')}`
  const after = { ...before, ...changedFields(before, { secret }, 1_000) }
  assert.deepEqual(signingSecrets(after, 1_000), [secret, before.secret])
  assert.deepEqual(signingSecrets(after, 1_000 + 24 * 3_600_000), [secret])
  assert.deepEqual(changedFields(before, { secret: before.secret }, 0), { secret: before.secret })
})

test('fuzz: reading any row throws nothing and reveals no value, and what is read is matched', () => {
  const whole = hook({ headers: { 'X-A': 'b' } })
  const field = fc.constantFrom(...Object.keys(whole), 'unknown', '__proto__', 'toString')
  const value = fc.oneof(
    fc.jsonValue(),
    fc.constant('planted-value'),
    fc.constant({ secret: 'planted-value' }),
  )
  fc.assert(
    fc.property(fc.array(fc.tuple(field, value)), fc.array(field), (changed, lost) => {
      const fields: Record<string, unknown> = { ...whole }
      for (const name of lost) delete fields[name]
      for (const [name, to] of changed) fields[name] = to
      const { found, problems } = readStoredWebhook(fields)
      assert.equal(
        problems.length === 0,
        Object.keys(whole).every((name) => Object.hasOwn(found, name)),
      )
      assert.doesNotMatch(problems.join(), /planted/)
      const filter = readStoredFilter(fields)
      if (filter !== undefined) assert.equal(typeof matchesWebhook(filter, push), 'boolean')
    }),
  )
  assert.deepEqual(readStoredWebhook(whole as unknown as Record<string, unknown>), {
    found: whole,
    problems: [],
  })
})
