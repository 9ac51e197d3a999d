import assert from 'node:assert/strict'
import { test } from 'node:test'
import { configurationLists, environmentExample, printConfig, shortTable } from '#shared/config/describe.ts'
import { loadConfig, variables } from '#shared/config/load.ts'
import type { Variable } from '#shared/config/variable.ts'

test('printing masks every secret, however many are declared', () => {
  const planted = {
    PORTOLAN_DATABASE_URL: 'postgres://user:hunter1@h/d?password=hunter2&sslpassword=hunter3',
    PORTOLAN_AZURE_ACCOUNT_KEY: 'hunter4',
    PORTOLAN_AZURE_ACCOUNT: 'a',
    PORTOLAN_KAFKA_USERNAME: 'u',
    PORTOLAN_KAFKA_PASSWORD: 'hunter5',
    PORTOLAN_SECRETS_KEY: 'hunter8'.repeat(5),
    PORTOLAN_PEER_KEYS: `${'hunter6'.repeat(5)},${'hunter7'.repeat(5)}`,
  }
  const text = printConfig(planted)
  assert.doesNotMatch(text, /hunter/)
  assert.match(text, /user:\*\*\*@h/)
  const secrets = Object.entries<Variable<unknown>>(variables).filter(([, { mask }]) => mask !== undefined)
  const shown = secrets.filter(([name]) => !(name in planted)).map(([name]) => name)
  assert.deepEqual(shown, [], 'every declared secret is planted in this test')
})

test('the printed configuration loads to the same configuration', () => {
  const environment = { PORTOLAN_LISTEN: ':6000', PORTOLAN_AUTH: 'none', PORTOLAN_CACHE_BYTES: '2GiB' }
  const lines = printConfig(environment)
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .map((line) => line.split(/=(.*)/s, 2) as [string, string])
  assert.deepEqual(loadConfig(Object.fromEntries(lines)), loadConfig(environment))
})

test('a configuration with problems is not printed', () => {
  assert.throws(() => printConfig({ PORTOLAN_REGION: 'EU' }), /PORTOLAN_REGION is not a lower-case word/)
})

test('the lists contain every variable once, and the short table twelve', () => {
  const listed = [...configurationLists().matchAll(/^- `(PORTOLAN_[A-Z0-9_]+)`/gm)].map((match) => match[1])
  assert.deepEqual(listed, Object.keys(variables))
  assert.equal([...shortTable().matchAll(/^\| `PORTOLAN_/gm)].length, 12)
})

test('lines of the pages fit in 120 columns', () => {
  const long = `${configurationLists()}\n${shortTable()}`.split('\n').filter((line) => line.length > 120)
  assert.deepEqual(long, [])
})

test('the unchanged example file changes nothing', () => {
  const uncommented = environmentExample()
    .split('\n')
    .filter((line) => /^# PORTOLAN_[A-Z_]+=./.test(line))
    .map((line) => line.slice(2).split(/=(.*)/s, 2) as [string, string])
  assert.deepEqual(loadConfig(Object.fromEntries(uncommented)), loadConfig({}))
})

test('printing reads each variable once, so that it shows what was validated', () => {
  const reads = (run: (environment: Record<string, string>) => unknown) => {
    let count = 0
    run(
      new Proxy<Record<string, string>>(
        { PORTOLAN_SECRETS_KEY: 'hunter'.repeat(6) },
        {
          get(target, name: string) {
            if (name === 'PORTOLAN_SECRETS_KEY') count++
            return target[name]
          },
        },
      ),
    )
    return count
  }
  assert.equal(reads(printConfig), reads(loadConfig))
})
