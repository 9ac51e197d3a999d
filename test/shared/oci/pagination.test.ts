import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RegistryError } from '#shared/errors.ts'
import { nextLink, parsePage } from '#shared/oci/pagination.ts'
import { parseQuery } from '#shared/oci/query.ts'

const page = (query: string) => parsePage(parseQuery(query))

test('a page has 100 entries, or the requested number up to 1000, from the start or after a name', () => {
  assert.deepEqual(page(''), { limit: 100, last: '' })
  assert.deepEqual(page('n=5&last=v1'), { limit: 5, last: 'v1' })
  assert.deepEqual(page('n=0'), { limit: 0, last: '' })
  assert.deepEqual(page('n=10000'), { limit: 1000, last: '' })
})

test('D1: a huge number is clamped, anything else is refused, and nothing is allocated for it', () => {
  for (const n of ['2147483648', '9223372036854775808', '1'.repeat(64)])
    assert.equal(page(`n=${n}`).limit, 1000)
  for (const query of ['n=-1', 'n=1&n=2', 'n=', 'n=x', 'n=1.5', 'n=1e9', 'n=%00', `n=${'9'.repeat(65)}`]) {
    assert.throws(
      () => page(query),
      (error) => error instanceof RegistryError && error.code === 'PAGINATION_NUMBER_INVALID',
      query,
    )
  }
  assert.throws(() => page(`last=${'x'.repeat(600)}`), RegistryError)
  assert.throws(() => page('last=%00'), RegistryError)
})

test('the link to the next page is path-absolute and escaped', () => {
  assert.equal(
    nextLink('/v2/a/tags/list', { last: 'a&b', n: 5 }),
    '</v2/a/tags/list?last=a%26b&n=5>; rel="next"',
  )
})
