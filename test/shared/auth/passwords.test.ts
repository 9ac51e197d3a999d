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
  const checker = createPasswordChecker({
    accounts,
    nowMs: () => clock.nowMs,
    compare: async (password, hash) => {
      hashes.push({ password, hash })
      return (compare ?? bcrypt.compare)(password, hash)
    },
  })
  const check = (name: string, password: string, address = '10.0.0.1') =>
    checker.check({ name, password, address })
  return { path, check, clock, hashes }
}

const tooMany = (error: unknown) => error instanceof RegistryError && error.code === 'TOOMANYREQUESTS'

test('a right password is accepted, a wrong one and an unknown name are not, whatever letter the hash has', async (t) => {
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
  // The dummy hash is one that bcrypt really computes with: a malformed one would return at once.
  assert.equal(hashes[1]?.hash.length, 60)
})

test('T4: a success is remembered for a minute, for these very credentials only', async (t) => {
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

test('T4: a changed password counts at once, also where the old one is remembered', async (t) => {
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

test('T4: failures make the next try from there wait, longer each time, and nobody else', async (t) => {
  const { check, clock } = await setUp(t)
  for (let failure = 0; failure < 11; failure++) await check('alice', 'wrong')
  await assert.rejects(check('alice', 'wrong'), tooMany)
  await assert.rejects(check('alice', 'secret'), tooMany, 'also with the right one')
  assert.ok(await check('alice', 'secret', '10.0.0.2'))
  clock.nowMs += 1_001
  assert.equal(await check('alice', 'wrong2'), undefined)
  clock.nowMs += 1_001
  await assert.rejects(check('alice', 'wrong'), tooMany, 'two seconds now')
  clock.nowMs += 60_000
  assert.ok(await check('alice', 'secret'))
})

test('T4: somebody who comes as a hash ends does not pass those in line', async (t) => {
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
  // Each newcomer arrives some microtasks after the end of a hash: one of them finds the place between two hands.
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
