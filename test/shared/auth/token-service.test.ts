import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import bcrypt from 'bcrypt'
import { openAccounts } from '#shared/auth/htpasswd.ts'
import { createKeyRing, type StoredKey } from '#shared/auth/key-ring.ts'
import { createPasswordChecker } from '#shared/auth/passwords.ts'
import { type Auth, answerTokenRequest, type TokenRequest } from '#shared/auth/token-service.ts'
import { createTokens } from '#shared/auth/tokens.ts'
import { RegistryError } from '#shared/errors.ts'
import { testDirectory } from '../../support/region.ts'

async function setUp(t: TestContext, anonymousPull = false) {
  const path = join(await testDirectory(t), 'htpasswd')
  const write = async (password: string) => writeFile(path, `alice:${await bcrypt.hash(password, 4)}\n`)
  await write('secret')
  const clock = { nowMs: 0 }
  const accounts = await openAccounts({ path, onProblem: () => {}, nowMs: () => clock.nowMs })
  const keys: StoredKey[] = []
  const store = { list: async () => keys, insertIfAbsent: async (key: StoredKey) => void keys.push(key) }
  const auth: Auth = {
    policy: { open: false, anonymousPull },
    accounts,
    passwords: createPasswordChecker({ accounts }),
    tokens: createTokens({ keys: createKeyRing({ store }), issuer: 'portolan/eu', ttlSeconds: 300 }),
    admins: [],
  }
  const ask = (request: Partial<TokenRequest>) =>
    answerTokenRequest(auth, {
      credentials: { kind: 'none' },
      scopes: [],
      offline: false,
      address: '::1',
      ...request,
    })
  const scopesOf = async (token: string) => (await auth.tokens.verifyAccess(token))?.scopes
  return { ask, scopesOf, write, clock, path }
}

const alice = { kind: 'basic', name: 'alice', password: 'secret' } as const
const unauthorized = (error: unknown) => error instanceof RegistryError && error.code === 'UNAUTHORIZED'

test('a token carries the requested scopes; both fields hold it; it lives at least a minute', async (t) => {
  const { ask, scopesOf } = await setUp(t)
  const answer = await ask({
    credentials: alice,
    scopes: ['repository:a:pull,push repository:b:pull', 'nonsense'],
  })
  assert.equal(answer.token, answer.access_token)
  assert.ok(answer.expires_in >= 60)
  assert.ok(!Number.isNaN(Date.parse(answer.issued_at)))
  assert.equal(answer.refresh_token, undefined)
  assert.deepEqual(await scopesOf(answer.token), [
    { type: 'repository', name: 'a', actions: ['pull', 'push'] },
    { type: 'repository', name: 'b', actions: ['pull'] },
  ])
})

test('bad credentials are refused, and so are none unless pulling is open; then the token has no push', async (t) => {
  const closed = await setUp(t)
  await assert.rejects(closed.ask({ credentials: { ...alice, password: 'x' } }), unauthorized)
  await assert.rejects(closed.ask({}), unauthorized)
  const open = await setUp(t, true)
  const { token } = await open.ask({ scopes: ['repository:a:pull,push'] })
  assert.deepEqual(await open.scopesOf(token), [{ type: 'repository', name: 'a', actions: ['pull'] }])
})

test('a refresh token works until the account is gone or its password has changed', async (t) => {
  const { ask, write, clock, path } = await setUp(t)
  const { refresh_token: refresh, token } = await ask({ credentials: alice, offline: true })
  assert.ok(refresh)
  assert.ok((await ask({ credentials: { kind: 'refresh', token: refresh } })).token)
  await assert.rejects(
    ask({ credentials: { kind: 'refresh', token } }),
    unauthorized,
    'an access token is none',
  )
  await assert.rejects(ask({ credentials: { kind: 'refresh', token: 'x' } }), unauthorized)
  await write('secret')
  clock.nowMs += 1_001
  await assert.rejects(
    ask({ credentials: { kind: 'refresh', token: refresh } }),
    unauthorized,
    'a new hash is a new password',
  )
  const again = await ask({ credentials: alice, offline: true })
  await writeFile(path, `bob:${await bcrypt.hash('x', 4)}\n`)
  clock.nowMs += 1_001
  await assert.rejects(
    ask({ credentials: { kind: 'refresh', token: again.refresh_token ?? '' } }),
    unauthorized,
  )
})
