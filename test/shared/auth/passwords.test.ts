import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import bcrypt from 'bcrypt'
import { openAccounts } from '#shared/auth/htpasswd.ts'
import { createPasswordChecker } from '#shared/auth/passwords.ts'
import { RegistryError } from '#shared/errors.ts'
import { testDirectory } from '../../support/region.ts'

async function setUp(t: TestContext, compare?: (password: string, hash: string) => Promise<boolean>) {
  const path = join(await testDirectory(t), 'htpasswd')
  await writeFile(path, `alice:${(await bcrypt.hash('secret', 4)).replace('$2b$', '$2y$')}\n`)
  const clock = { nowMs: 1_000_000 }
  const accounts = await openAccounts({ path, onProblem: () => {}, nowMs: () => clock.nowMs })
  const hashes: { password: string; hash: string }[] = []
  const failed: { name: string; address: string }[] = []
  const checker = createPasswordChecker({
    accounts,
    onFailure: (failure) => failed.push(failure),
    nowMs: () => clock.nowMs,
    compare: async (password, hash) => {
      hashes.push({ password, hash })
      return (compare ?? bcrypt.compare)(password, hash)
    },
  })
  const check = (name: string, password: string, address = '10.0.0.1') =>
    checker.check({ name, password, address })
  return { path, check, clock, hashes, failed }
}

const tooMany = (error: unknown) => error instanceof RegistryError && error.code === 'TOOMANYREQUESTS'

test('only the right password of a known account is accepted, whichever prefix the hash has', async (t) => {
  const { check } = await setUp(t)
  assert.equal((await check('alice', 'secret'))?.name, 'alice')
  assert.equal(await check('alice', 'wrong'), undefined)
  assert.equal(await check('bob', 'secret'), undefined)
  assert.equal(await check('', ''), undefined)
})

test('T3: an unknown account costs the same hashes as a known one, at the same cost', async (t) => {
  const { check, hashes } = await setUp(t)
  await check('alice', 'wrong')
  await check('nobody', 'wrong')
  assert.equal(hashes.length, 2)
  const cost = (index: number) => hashes[index]?.hash.slice(0, 7)
  assert.equal(cost(0), '$2b$04$')
  assert.equal(cost(1), cost(0))
  // bcrypt really computes the dummy hash. A malformed one would return at once.
  assert.equal(hashes[1]?.hash.length, 60)
})

test('T4: a success is remembered for a minute, for exactly these credentials', async (t) => {
  const { check, hashes, clock } = await setUp(t)
  await check('alice', 'secret')
  await check('alice', 'secret')
  assert.equal(hashes.length, 1)
  await check('alice', 'secret2')
  assert.equal(hashes.length, 2)
  clock.nowMs += 60_001
  await check('alice', 'secret')
  assert.equal(hashes.length, 3)
})

test('T4: a changed password takes effect at once, even if the old one is cached', async (t) => {
  const { check, clock, path } = await setUp(t)
  assert.ok(await check('alice', 'secret'))
  await writeFile(path, `alice:${await bcrypt.hash('changed', 4)}\n`)
  clock.nowMs += 1_001
  assert.equal(await check('alice', 'secret'), undefined)
  assert.ok(await check('alice', 'changed'))
})

test('T4: a password is not accepted by its first 72 bytes', async (t) => {
  const long = 'x'.repeat(72)
  const { check, path, clock, hashes } = await setUp(t)
  await writeFile(path, `alice:${await bcrypt.hash(long, 4)}\n`)
  clock.nowMs += 1_001
  assert.ok(await check('alice', long))
  assert.equal(await check('alice', `${long}y`), undefined)
  assert.equal(hashes.length, 2, 'it costs a hash all the same')
})

test('T4: a storm of logins computes two hashes at a time, keeps some waiting, and refuses the rest', async (t) => {
  let running = 0
  let most = 0
  const { check } = await setUp(t, async () => {
    running++
    most = Math.max(most, running)
    await new Promise((turn) => setImmediate(turn))
    running--
    return false
  })
  const outcomes = await Promise.allSettled(
    Array.from({ length: 500 }, (_, index) => check(`user${index}`, 'x', `10.0.0.${index}`)),
  )
  assert.equal(most, 2)
  const refused = outcomes.filter(({ status }) => status === 'rejected')
  assert.equal(refused.length, 500 - 66)
  for (const outcome of refused) assert.ok(outcome.status === 'rejected' && tooMany(outcome.reason))
})

/** Makes as many attempts with different wrong passwords as are free, and one more. */
async function failOften(
  check: (name: string, password: string, address?: string) => Promise<unknown>,
  address?: string,
) {
  for (let failure = 0; failure < 11; failure++) await check('alice', `wrong ${failure}`, address)
}

test("T4: failures delay the next attempt from there, longer each time, and no one else's", async (t) => {
  const { check, clock } = await setUp(t)
  await failOften(check)
  await assert.rejects(check('alice', 'wrong'), tooMany)
  await assert.rejects(check('alice', 'secret'), tooMany, 'also with the right one')
  assert.ok(await check('alice', 'secret', '10.0.0.2'), 'alice elsewhere is not kept out')
  assert.equal(await check('bob', 'secret', '10.0.0.1'), undefined, 'another account there is looked at')
  clock.nowMs += 1_001
  assert.equal(await check('alice', 'wrong2'), undefined)
  clock.nowMs += 1_001
  await assert.rejects(check('alice', 'wrong'), tooMany, 'two seconds now')
  clock.nowMs += 30_000
  assert.ok(await check('alice', 'secret'))
})

test('failures are forgotten, one per minute: old failures cause no wait', async (t) => {
  const { check, clock } = await setUp(t)
  await failOften(check)
  clock.nowMs += 24 * 3_600_000
  for (let failure = 0; failure < 10; failure++)
    assert.equal(await check('alice', `later ${failure}`), undefined)
  assert.ok(await check('alice', 'secret'), 'ten failures are free again')
})

test('however many failures there were, the next attempt is checked within half a minute', async (t) => {
  const { check, clock } = await setUp(t)
  for (let failure = 0; failure < 200; failure++) {
    await check('alice', `wrong ${failure}`).catch(() => {})
    clock.nowMs += 30_001
  }
  await check('alice', 'one more').catch(() => {})
  clock.nowMs += 30_001
  assert.ok(await check('alice', 'secret'))
})

test('a program that repeats one old password counts as one failure and costs one hash', async (t) => {
  const { check, hashes, failed } = await setUp(t)
  for (let time = 0; time < 100; time++) assert.equal(await check('alice', 'stale'), undefined)
  assert.ok(await check('alice', 'secret'), 'its neighbours are not kept out')
  assert.equal(hashes.length, 2)
  assert.equal(failed.length, 100, 'each is told')
})

test('parallel guesses are limited like sequential ones', async (t) => {
  const { check, hashes } = await setUp(t)
  const outcomes = await Promise.allSettled(
    Array.from({ length: 500 }, (_, index) => check('alice', `guess ${index}`)),
  )
  assert.equal(hashes.length, 11)
  assert.equal(outcomes.filter(({ status }) => status === 'rejected').length, 489)
})

test('a cached right password does not allow more guesses', async (t) => {
  const { check, hashes } = await setUp(t)
  assert.ok(await check('alice', 'secret'))
  await Promise.allSettled(Array.from({ length: 500 }, (_, index) => check('alice', `guess ${index}`)))
  await assert.rejects(
    check('alice', 'secret'),
    tooMany,
    'else the memory would answer any number of guesses',
  )
  assert.equal(hashes.length, 12)
})

test('many identical logins at the same time cost one hash', async (t) => {
  const { check, hashes } = await setUp(t)
  const all = await Promise.all(Array.from({ length: 300 }, () => check('alice', 'secret')))
  assert.ok(all.every((account) => account?.name === 'alice'))
  assert.equal(hashes.length, 1)
})

test('an IPv6 address counts as its network: failures from many addresses of a /64 add up', async (t) => {
  const { check } = await setUp(t)
  for (let failure = 0; failure < 11; failure++)
    await check('alice', `wrong ${failure}`, `2001:db8::${failure + 1}`)
  await assert.rejects(check('alice', 'wrong', '2001:db8::ffff:1'), tooMany)
  assert.ok(await check('alice', 'secret', '2001:db8:0:1::1'))
})

test('one address cannot occupy the password queue: another one is served next', async (t) => {
  const ends: (() => void)[] = []
  const order: string[] = []
  const { check } = await setUp(t, async (password) => {
    order.push(password)
    await new Promise<void>((end) => ends.push(end))
    return false
  })
  const turn = () => new Promise((next) => setImmediate(next))
  const flood = Array.from({ length: 500 }, (_, index) =>
    check(`user${index}`, `flood ${index}`, '10.0.0.1').catch((error: unknown) => error),
  )
  await turn()
  const other = check('alice', 'other', '10.0.0.2')
  for (let hash = 0; hash < 4; hash++) {
    while (ends.length === 0) await turn()
    ends.shift()?.()
  }
  assert.equal(await other, undefined)
  assert.ok(order.indexOf('other') <= 3, `it was number ${order.indexOf('other')}`)
  let idle = 0
  while (idle < 50) {
    await turn()
    idle = ends.length === 0 ? idle + 1 : 0
    ends.shift()?.()
  }
  const refused = (await Promise.all(flood)).filter(tooMany)
  assert.equal(refused.length, 500 - 2 - 32, 'an address has a bounded part of the line')
})

test('each failed login is reported, with a bounded name and without the password', async (t) => {
  const { check, failed } = await setUp(t)
  await check('alice', 'planted-password')
  await check('x'.repeat(10_000), 'planted-password')
  await check('alice', 'secret')
  assert.deepEqual(failed, [
    { name: 'alice', address: '10.0.0.1' },
    { name: 'x'.repeat(64), address: '10.0.0.1' },
  ])
})

test('T4: a login that arrives as a hash ends does not overtake those that wait', async (t) => {
  let running = 0
  let most = 0
  const ends: (() => void)[] = []
  const { check } = await setUp(t, async () => {
    most = Math.max(most, ++running)
    await new Promise<void>((end) => ends.push(end))
    running--
    return false
  })
  const turn = () => new Promise((next) => setImmediate(next))
  const first = [1, 2, 3].map((index) => check(`user${index}`, 'x', `10.0.0.${index}`))
  while (ends.length < 2) await turn()
  const newcomers: Promise<unknown>[] = []
  // Each newcomer arrives some microtasks after a hash ends, so one of them arrives while the slot changes hands.
  for (let delay = 0; delay < 20; delay++) {
    newcomers.push(
      (async () => {
        for (let step = 0; step < delay; step++) await undefined
        return check(`late${delay}`, 'x', `10.0.1.${delay}`)
      })(),
    )
  }
  ends.shift()?.()
  let idle = 0
  while (idle < 100) {
    await turn()
    const end = ends.shift()
    idle = end === undefined ? idle + 1 : 0
    end?.()
  }
  await Promise.all([...first, ...newcomers])
  assert.equal(most, 2)
})
