import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type BlobStore, EMPTY_SESSION } from '#shared/blobs/blob-store.ts'
import { createByteBudget } from '#shared/blobs/byte-budget.ts'
import { openFileStore } from '#shared/blobs/files/file-store.ts'
import {
  claimStore,
  judgeOwner,
  markerOf,
  parseMarker,
  requireOwner,
  type StoreFacts,
  StoreOwnerError,
  takeStore,
} from '#shared/blobs/store-owner.ts'
import { testDirectory } from '../../support/region.ts'

const MINE = { region: 'eu', database: 'a' }
const NOTHING = { marker: undefined, sampled: 0, known: 0, rows: false }
const NO_ROWS = { any: async () => false, among: async () => new Set<string>() }

test('a marker reads back as it was written; anything else is unreadable', () => {
  const marker = { ...MINE, founded: true }
  assert.deepEqual(parseMarker(markerOf(marker)), marker)
  const later = JSON.stringify({ format: 2, region: 'eu', database: 'a' })
  for (const text of ['', '{', 'null', '[]', '"x"', '{}', later, '{"format":1,"region":1,"database":"a"}']) {
    assert.equal(parseMarker(text), undefined, text)
  }
})

test('a store is claimed when it is empty or known, and refused in every other case', () => {
  const verdict = (facts: Partial<StoreFacts>) => judgeOwner({ ...NOTHING, ...facts }, MINE)
  const marked = (owner: typeof MINE) => markerOf({ ...owner, founded: false })
  assert.equal(verdict({}).kind, 'claim')
  assert.equal(verdict({ sampled: 9, known: 1, rows: true }).kind, 'claim')
  assert.equal(verdict({ marker: marked(MINE) }).kind, 'owned')
  const refused: [Parameters<typeof verdict>[0], RegExp][] = [
    [{ sampled: 9 }, /knows none of them/],
    [{ sampled: 9, rows: true }, /knows none of them/],
    [{ rows: true }, /is empty, and this database names objects in it/],
    [{ marker: marked({ region: 'us', database: 'a' }) }, /belongs to the region "us"/],
    [
      { marker: marked({ region: 'eu', database: 'b' }) },
      /belongs to another database of the region "eu" \(b\)/,
    ],
    [{ marker: 'what?' }, /cannot read/],
  ]
  for (const [facts, words] of refused) {
    const judged = verdict(facts)
    assert.ok(judged.kind === 'refused' && words.test(judged.reason), JSON.stringify(judged))
  }
})

test('two databases that claim an empty store at once: one has it, the other is refused, until it takes it on purpose', async (t) => {
  const directory = await testDirectory(t)
  const store = await openFileStore({
    directory,
    budget: createByteBudget({ bytesMax: 2 ** 20 }),
    freeBytesMin: 0,
  })
  t.after(() => store[Symbol.asyncDispose]())
  const owners = ['a', 'b'].map((database) => ({ region: 'eu', database }))
  const outcomes = await Promise.allSettled(owners.map((owner) => claimStore(store, owner, NO_ROWS)))
  assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  const loser = owners[outcomes.findIndex(({ status }) => status === 'rejected')]
  const winner = owners[outcomes.findIndex(({ status }) => status === 'fulfilled')]
  assert.ok(loser && winner)
  assert.equal((await claimStore(store, winner, NO_ROWS)).founded, true)
  await assert.rejects(requireOwner(store, loser), StoreOwnerError)
  await takeStore(store, loser)
  assert.equal((await requireOwner(store, loser)).founded, false, 'what is in it came from elsewhere')
  await assert.rejects(requireOwner(store, winner), StoreOwnerError)
})

test('nodes of one region that start at once on a new store: what the first has written refuses no other', async (t) => {
  const directory = await testDirectory(t)
  const budget = createByteBudget({ bytesMax: 2 ** 20 })
  const store = await openFileStore({ directory, budget, freeBytesMin: 0 })
  t.after(() => store[Symbol.asyncDispose]())
  const between: BlobStore = {
    ...store,
    // After this node has looked for the marker and before it lists the objects, another node claims the store and
    // uploads.
    async list(after, limit) {
      await claimStore(store, MINE, NO_ROWS)
      await using attempt = await store.begin(EMPTY_SESSION, { algorithm: 'sha256' })
      await attempt.write(Buffer.from('a blob'))
      await attempt.finish()
      return store.list(after, limit)
    },
  }
  assert.equal((await claimStore(between, MINE, NO_ROWS)).founded, true)
})
