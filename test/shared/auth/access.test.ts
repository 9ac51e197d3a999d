import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  type Action,
  type Actor,
  ANONYMOUS,
  allows,
  grantableScopes,
  type Identity,
  mayPull,
} from '#shared/auth/access.ts'
import { parseRepositoryName } from '#shared/oci/reference.ts'
import type { Scope } from '#shared/oci/scope.ts'

const name = (text: string) => {
  const parsed = parseRepositoryName(text)
  assert.ok(parsed)
  return parsed
}
const alice: Actor = { kind: 'account', name: 'alice', admin: false }
const admin: Actor = { kind: 'account', name: 'root', admin: true }
const closed = { open: false, anonymousPull: false }
const publicPull = { open: false, anonymousPull: true }

test('A9: a token allows exactly what its scopes say', () => {
  const names = ['a/x', 'a/x2', 'a/xx', 'a', 'x', 'a/x/y', 'host/a/x']
  const scope: fc.Arbitrary<Scope> = fc.record(
    {
      type: fc.constantFrom('repository', 'registry', 'repo', 'Repository'),
      class: fc.constantFrom('plugin'),
      name: fc.constantFrom(...names, 'A/x', 'a/x/', 'a%2fx', '*', '', 'catalog'),
      actions: fc.subarray(['pull', 'push', 'delete', '*', 'PULL'], { minLength: 1 }),
    },
    { requiredKeys: ['type', 'name', 'actions'] },
  )
  fc.assert(
    fc.property(
      fc.array(scope, { maxLength: 4 }),
      fc.constantFrom(...names),
      fc.subarray<Action>(['pull', 'push', 'delete'], { minLength: 1 }),
      fc.constantFrom(alice, ANONYMOUS),
      fc.boolean(),
      (scopes, repository, actions, actor, anonymousPull) => {
        // The reference model, written out in full.
        const inToken = (action: string) =>
          scopes.some(
            (one) =>
              one.type === 'repository' &&
              !('class' in one && one.class) &&
              one.name === repository &&
              (one.actions.includes(action) || one.actions.includes('*')),
          )
        const ofActor = (action: string) => actor.kind === 'account' || (anonymousPull && action === 'pull')
        const expected = actions.every((action) => inToken(action) && ofActor(action))
        const identity: Identity = { actor, scopes }
        assert.equal(
          allows({ open: false, anonymousPull }, identity, {
            kind: 'repository',
            name: name(repository),
            actions,
          }),
          expected,
        )
      },
    ),
    { numRuns: 2_000 },
  )
})

test('accounts may do everything; anonymous callers may pull if that is allowed, and nothing else', () => {
  const need = (actions: Action[]) => ({ kind: 'repository' as const, name: name('a'), actions })
  const nobody: Identity = { actor: ANONYMOUS, scopes: undefined }
  const login: Identity = { actor: alice, scopes: undefined }
  assert.equal(allows(closed, login, need(['pull', 'push', 'delete'])), true)
  assert.equal(allows(closed, nobody, need(['pull'])), false)
  assert.equal(allows(publicPull, nobody, need(['pull'])), true)
  assert.equal(allows(publicPull, nobody, need(['pull', 'push'])), false)
  assert.equal(allows(publicPull, nobody, { kind: 'catalog' }), true)
  assert.equal(allows(closed, nobody, { kind: 'catalog' }), false)
  assert.equal(mayPull(publicPull, nobody, name('a')), true)
})

test('the ping needs a credential even if pulling is open; any valid token is one', () => {
  const need = { kind: 'credential' as const }
  assert.equal(allows(publicPull, { actor: ANONYMOUS, scopes: undefined }, need), false)
  assert.equal(allows(publicPull, { actor: ANONYMOUS, scopes: [] }, need), true)
  assert.equal(allows(publicPull, { actor: alice, scopes: undefined }, need), true)
})

test("administration needs an admin's own login: no token grants it, whatever its scopes", () => {
  const need = { kind: 'admin' as const }
  assert.equal(allows(closed, { actor: admin, scopes: undefined }, need), true)
  assert.equal(
    allows(closed, { actor: admin, scopes: [{ type: 'registry', name: 'catalog', actions: ['*'] }] }, need),
    false,
  )
  assert.equal(allows(closed, { actor: alice, scopes: undefined }, need), false)
  assert.equal(allows(publicPull, { actor: ANONYMOUS, scopes: undefined }, need), false)
})

test('a token carries the permitted part of what was requested, which may be empty', () => {
  const ask: Scope[] = [
    { type: 'repository', name: 'a', actions: ['pull', 'push'] },
    { type: 'registry', name: 'catalog', actions: ['*'] },
    { type: 'registry', name: 'other', actions: ['*'] },
    { type: 'repository', class: 'plugin', name: 'a', actions: ['pull'] },
    { type: 'namespace', name: 'a', actions: ['pull'] },
  ]
  assert.deepEqual(grantableScopes(closed, alice, ask), ask.slice(0, 2))
  assert.deepEqual(grantableScopes(publicPull, ANONYMOUS, ask), [
    { type: 'repository', name: 'a', actions: ['pull'] },
    ask[1],
  ])
  assert.deepEqual(grantableScopes(closed, ANONYMOUS, ask), [])
})
