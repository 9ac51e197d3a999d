import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ConfigError, loadConfig, variables } from '#shared/config/load.ts'
import { nearest, nearlyBegins } from '#shared/config/spelling.ts'

/** Each has one typing mistake. */
const slips: ((name: string) => string)[] = [
  (name) => name.slice(0, -1),
  (name) => `${name}S`,
  (name) => name.slice(0, 12) + name.slice(13),
  (name) => name.slice(0, 11) + name[12] + name[11] + name.slice(13),
  (name) => name.slice(0, 12) + name[11] + name.slice(12),
  (name) => `PORTLAN_${name.slice('PORTOLAN_'.length)}`,
  (name) => name.toLowerCase(),
]

test('a misspelling of any variable suggests that variable', () => {
  const names = Object.keys(variables)
  for (const name of names) {
    for (const slip of slips) {
      const misspelt = slip(name)
      if (names.includes(misspelt)) continue
      assert.throws(
        () => loadConfig({ [misspelt]: 'x' }),
        (error: ConfigError) => error.message.includes(`${misspelt} is unknown; the nearest name is ${name}`),
        `${misspelt} for ${name}`,
      )
    }
  }
})

test('an unfinished name is recognised by its beginning', () => {
  for (const [begun, whole] of [
    ['PORTOLAN_HTPASSWD', 'PORTOLAN_HTPASSWD_FILE'],
    ['PORTOLAN_DATABASE', 'PORTOLAN_DATABASE_URL'],
    ['PORTOLAN_TOKEN_TTL', 'PORTOLAN_TOKEN_TTL_SECONDS'],
    ['PORTOLAN_ANONYMOUS', 'PORTOLAN_ANONYMOUS_PULL'],
  ] as const)
    assert.equal(nearest(begun, Object.keys(variables)), whole)
})

test("other programs' variables are ignored", () => {
  for (const name of ['PORT', 'PORTLAND_OFFICE', 'PORTAL_HOST', 'PATH', 'PORTOLAN_CI_CACHE'])
    assert.doesNotThrow(() => loadConfig({ [name]: 'x' }), name)
  assert.ok(!nearlyBegins('PORTOLAN_LISTEN', 'PORTOLAN_'))
})
