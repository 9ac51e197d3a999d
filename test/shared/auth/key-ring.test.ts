import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createKeyRing, makeKey, nextKeyDue, type StoredKey, signingKey } from '#shared/auth/key-ring.ts'

const DAY_MS = 24 * 3_600_000

function memoryStore() {
  const keys: StoredKey[] = []
  const counts = { lists: 0 }
  return {
    keys,
    counts,
    list: async () => {
      counts.lists++
      return [...keys]
    },
    insertIfAbsent: async (key: StoredKey) => {
      if (!keys.some(({ signsFromMs }) => Math.abs(signsFromMs - key.signsFromMs) < 3_600_000)) keys.push(key)
    },
  }
}

test('for a hundred days each key is published a day before it signs, and outlives its tokens', async () => {
  const store = memoryStore()
  const clock = { nowMs: 1_800_000_000_000 }
  const nodes = [1, 2].map(() => createKeyRing({ store, nowMs: () => clock.nowMs }))
  const start = clock.nowMs
  const firstSigned = new Map<string, number>()
  let previous: string | undefined
  for (; clock.nowMs < start + 100 * DAY_MS; clock.nowMs += DAY_MS / 4) {
    const kids = await Promise.all(nodes.map(async (node) => (await node.signing()).kid))
    assert.equal(new Set(kids).size, 1, 'the nodes agree')
    const [kid] = kids
    assert.ok(kid)
    if (!firstSigned.has(kid)) firstSigned.set(kid, clock.nowMs)
    for (const node of nodes) {
      assert.ok(await node.verifying(kid))
      if (previous !== undefined && previous !== kid)
        assert.ok(await node.verifying(previous), 'tokens just signed stay valid')
    }
    previous = kid
  }
  assert.equal(store.keys.length, 4, 'one key a month')
  for (const key of store.keys.slice(1)) {
    const signed = firstSigned.get(key.kid)
    assert.ok(signed === undefined || signed - key.createdAtMs >= DAY_MS * 0.99, 'published a day before')
  }
})

test('only the very first key signs at once; a region that was down publishes before it signs', () => {
  const now = 1_800_000_000_000
  const key = {
    kid: 'k',
    privateJwk: {},
    publicJwk: {},
    createdAtMs: now,
    signsFromMs: now,
    retiresAtMs: now + 32 * DAY_MS,
  }
  assert.equal(nextKeyDue([], now), now)
  assert.equal(nextKeyDue([key], now + 28 * DAY_MS), undefined)
  assert.equal(nextKeyDue([key], now + 29 * DAY_MS), now + 30 * DAY_MS)
  assert.equal(nextKeyDue([key], now + 31 * DAY_MS), now + 32 * DAY_MS)
  assert.equal(signingKey([key, { ...key, kid: 'later', signsFromMs: now + DAY_MS }], now)?.kid, 'k')
})

test('unknown key ids cause at most one lookup in five seconds', async () => {
  const store = memoryStore()
  const clock = { nowMs: 1_800_000_000_000 }
  const ring = createKeyRing({ store, nowMs: () => clock.nowMs })
  await ring.signing()
  const before = store.counts.lists
  for (let index = 0; index < 1_000; index++)
    assert.equal(await ring.verifying(`unknown-${index}`), undefined)
  assert.equal(store.counts.lists, before)
  clock.nowMs += 5_000
  for (let index = 0; index < 1_000; index++) await ring.verifying(`unknown-${index}`)
  assert.equal(store.counts.lists, before + 1)
})

test('if the database is down at the first lookup, the next request tries again', async () => {
  const store = memoryStore()
  let away = true
  const ring = createKeyRing({
    store: {
      ...store,
      list: async () => {
        if (away) throw new Error('away')
        return store.list()
      },
    },
    nowMs: () => 1_800_000_000_000,
  })
  await assert.rejects(ring.signing(), /away/)
  away = false
  assert.ok(await ring.signing())
})

test('requests that arrive during the first lookup wait for it', async () => {
  const store = memoryStore()
  const ring = createKeyRing({ store, nowMs: () => 1_800_000_000_000 })
  const kids = await Promise.all([1, 2, 3].map(async () => (await ring.signing()).kid))
  assert.equal(new Set(kids).size, 1)
})

test('a key that cannot be opened verifies and does not sign: a new one signs at once', async () => {
  const nowMs = 50 * DAY_MS
  const lost = { ...(await makeKey({ nowMs, signsFromMs: nowMs })), privateJwk: undefined }
  const stored: StoredKey[] = [lost]
  let besides: readonly string[] = []
  const ring = createKeyRing({
    nowMs: () => nowMs + 1_000,
    store: {
      list: async () => stored,
      insertIfAbsent: async (key, closed) => {
        besides = closed
        stored.push(key)
      },
    },
  })
  assert.equal((await ring.signing()).kid, stored[1]?.kid)
  assert.deepEqual(besides, [lost.kid], 'it is no reason to do without a new one')
  assert.ok(await ring.verifying(lost.kid))
  assert.equal((await ring.signing()).kid, stored[1]?.kid)
  assert.equal(stored.length, 2)
})
