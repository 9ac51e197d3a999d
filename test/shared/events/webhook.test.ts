import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  changedFields,
  matchesWebhook,
  newWebhook,
  parseWebhook,
  signingSecrets,
} from '#shared/events/webhook.ts'

const hook = (given: object) => newWebhook(parseWebhook({ url: 'https://example.com/', ...given }))
const push = { type: 'dev.portolan.registry.push.v1', repository: 'team/app' }

test('a webhook gets pushes and deletes unless it says more, and what its format can tell', () => {
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

test('a secret that is replaced signs beside the new one for a day', () => {
  const before = hook({})
  const secret = `whsec_${Buffer.alloc(24, 1).toString('base64')}`
  const after = { ...before, ...changedFields(before, { secret }, 1_000) }
  assert.deepEqual(signingSecrets(after, 1_000), [secret, before.secret])
  assert.deepEqual(signingSecrets(after, 1_000 + 24 * 3_600_000), [secret])
  assert.deepEqual(changedFields(before, { secret: before.secret }, 0), { secret: before.secret })
})
