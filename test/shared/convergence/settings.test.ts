import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  emptySetting,
  mergeExistence,
  mergeField,
  type Setting,
  valuesOf,
} from '#shared/convergence/settings.ts'
import type { Version } from '#shared/convergence/version.ts'

// Plain objects: the later comparison is about values, not about how they were created.
const version: fc.Arbitrary<Version> = fc.record(
  { h: fc.bigInt({ min: 1n, max: 6n }), origin: fc.constantFrom('eu', 'us') },
  { noNullPrototype: true },
)
const write = fc.oneof(
  fc.record(
    { field: fc.constantFrom('url', 'events'), version, value: fc.constantFrom('a', 'b') },
    { noNullPrototype: true },
  ),
  fc.record({ version, exists: fc.boolean(), since: version }, { noNullPrototype: true }).map((existence) => {
    // One write has one version. `since` follows from it, so two regions never report different ones.
    const since = existence.exists ? existence.version : { h: 0n, origin: '' }
    return { ...existence, since }
  }),
)

function merge(setting: Setting, one: typeof write extends fc.Arbitrary<infer T> ? T : never): void {
  if ('field' in one) mergeField(setting, one.field, one)
  else mergeExistence(setting, one)
}

test('settings merge alike in any order, however often', () => {
  fc.assert(
    fc.property(fc.array(write, { maxLength: 8 }), fc.array(fc.nat(), { maxLength: 20 }), (writes, again) => {
      const [a, b] = [emptySetting(), emptySetting()]
      for (const one of writes) merge(a, one)
      for (const index of again) {
        const one = writes[index % Math.max(1, writes.length)]
        if (one !== undefined) merge(b, one)
      }
      for (const one of writes.toReversed()) merge(b, one)
      assert.deepEqual(sorted(b), sorted(a))
    }),
  )
})

function sorted(setting: Setting): unknown {
  return [[...(valuesOf(setting) ?? [])].toSorted(), valuesOf(setting) === undefined, setting.existence]
}

test('two regions that change two fields both win; a revocation wins a tie; a new object has no old fields', () => {
  const at = (h: bigint, origin = 'eu'): Version => ({ h, origin })
  const setting = emptySetting()
  mergeExistence(setting, { version: at(1n), exists: true, since: at(1n) })
  mergeField(setting, 'url', { version: at(2n, 'eu'), value: 'u' })
  mergeField(setting, 'events', { version: at(2n, 'us'), value: 'e' })
  assert.deepEqual(Object.fromEntries(valuesOf(setting) ?? []), { url: 'u', events: 'e' })
  mergeExistence(setting, { version: at(1n), exists: false, since: at(0n, '') })
  assert.equal(valuesOf(setting), undefined)
  mergeExistence(setting, { version: at(3n), exists: true, since: at(3n) })
  mergeField(setting, 'url', { version: at(3n), value: 'new' })
  assert.deepEqual(Object.fromEntries(valuesOf(setting) ?? []), { url: 'new' })
})
