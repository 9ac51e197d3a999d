import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatScope, parseScope, parseScopes } from '#shared/oci/scope.ts'

test('scopes are split on the first and the last colon', () => {
  assert.deepEqual(parseScope('repository:a/b:pull,push'), {
    type: 'repository',
    name: 'a/b',
    actions: ['pull', 'push'],
  })
  assert.deepEqual(parseScope('repository:host:5000/a:pull'), {
    type: 'repository',
    name: 'host:5000/a',
    actions: ['pull'],
  })
  assert.deepEqual(parseScope('repository(plugin):a:pull'), {
    type: 'repository',
    class: 'plugin',
    name: 'a',
    actions: ['pull'],
  })
  assert.deepEqual(parseScope('registry:catalog:*'), { type: 'registry', name: 'catalog', actions: ['*'] })
  for (const text of [
    '',
    'a',
    'a:b',
    ':a:pull',
    'repository::pull',
    'repository:a:',
    'repository:a:PULL',
    'repository:a:pull,',
    'x y:a:pull',
    `repository:${'a'.repeat(1_100)}:pull`,
  ]) {
    assert.equal(parseScope(text), undefined, text.slice(0, 40))
  }
})

test('scopes may be repeated and separated by spaces; invalid ones grant nothing; there are at most 100', () => {
  assert.deepEqual(parseScopes(['repository:a:pull repository:b:push', 'nonsense', '  ']).map(formatScope), [
    'repository:a:pull',
    'repository:b:push',
  ])
  assert.equal(parseScopes(['repository:a:pull '.repeat(10_000)]).length, 100)
})

test('D9: adversarial text is refused in one linear pass', () => {
  for (const text of [':'.repeat(65_536), 'a'.repeat(65_536), `repository:a:${'pull,'.repeat(200)}`])
    assert.equal(parseScope(text), undefined)
})

test('fuzz: a parsed scope is formatted as it was, except for repeated actions', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z]{1,5}(\([a-z]{1,3}\))?:[a-z:/]{1,9}:[a-z,*]{1,9}$/), (text) => {
      const scope = parseScope(text)
      if (scope === undefined) return
      assert.deepEqual(parseScope(formatScope(scope)), scope)
    }),
  )
})
