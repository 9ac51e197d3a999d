import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { openAccounts, parseHtpasswd } from '#shared/auth/htpasswd.ts'
import { testDirectory } from '../../support/region.ts'

const hash = (cost: string) => `$2y$${cost}$${'a'.repeat(53)}`

test('accounts are lines of a name and a bcrypt hash; comments and empty lines are skipped', () => {
  const accounts = parseHtpasswd(`# people\n\nalice:${hash('10')}\r\nbob:${hash('05')}\n`)
  assert.deepEqual([...accounts.keys()], ['alice', 'bob'])
  assert.equal(accounts.get('alice')?.hash, `$2b$10$${'a'.repeat(53)}`)
  assert.equal(accounts.get('bob')?.cost, 5)
})

test('T4: an error names its line and never the hash', () => {
  const wrong: [string, RegExp][] = [
    [`alice:${hash('31')}`, /line 1 .*cost/],
    ['alice:$apr1$abc$def', /line 1 .*htpasswd -B/],
    ['alice:{SHA}abc', /line 1/],
    [`:${hash('10')}`, /no account name/],
    ['nocolon', /no account name/],
    [`alice:${hash('10')}\nalice:${hash('10')}`, /line 2 .*repeats the account/],
    [`${'x'.repeat(256)}:${hash('10')}`, /no account name/],
  ]
  for (const [text, message] of wrong) {
    assert.throws(
      () => parseHtpasswd(text),
      (error: Error) =>
        message.test(error.message) && !error.message.includes('aaaa') && !error.message.includes('abc$'),
    )
  }
})

test('a changed file is read; a broken one leaves the accounts as they were and is reported', async (t) => {
  const path = join(await testDirectory(t), 'htpasswd')
  const clock = { nowMs: 0 }
  const problems: string[] = []
  await writeFile(path, `alice:${hash('10')}`)
  const accounts = await openAccounts({
    path,
    nowMs: () => clock.nowMs,
    onProblem: ({ message }) => problems.push(message),
  })
  assert.ok(await accounts.find('alice'))
  await writeFile(path, `bob:${hash('10')}\ncarol:${hash('10')}`)
  assert.equal(await accounts.find('bob'), undefined, 'looked at no more than once a second')
  clock.nowMs += 1_000
  assert.ok(await accounts.find('bob'))
  assert.equal(await accounts.find('alice'), undefined)
  await writeFile(path, 'half a li')
  clock.nowMs += 1_000
  assert.ok(await accounts.find('bob'))
  assert.equal(problems.length, 1)
})
