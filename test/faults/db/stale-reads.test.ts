// Cached reads beside writers whose transactions use savepoints, rollbacks and two-phase commits. No read is ever
// stale.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { counterDatabase, KEYS, openReader, startWriters, violations } from '../../support/counters.ts'
import { eventually } from '../../support/eventually.ts'

test('stress: no stale read in a million beside writers with every kind of transaction end', async (t) => {
  const url = await counterDatabase(t)
  const reader = openReader(t, url)
  const { floor, acknowledged, stop } = startWriters(t, url, 3)
  await eventually('the writers to write', () => acknowledged() > 10)
  let reads = 0
  let stale = 0
  while (reads < 1_000_000) {
    await Promise.all(
      Array.from({ length: 500 }, async () => {
        const key = 1 + Math.floor(Math.random() * KEYS)
        const least = floor[key] ?? 0
        const value = await reader.read(key)
        reads++
        if (value === undefined || value < least) stale++
      }),
    )
  }
  await stop()
  const { hits, secondReads } = reader.counts()
  t.diagnostic(
    `${reads} reads, ${hits} cached, ${secondReads} second statements, ${acknowledged()} writes, ${stale} stale`,
  )
  assert.equal(stale, 0)
  assert.ok(hits > 1_000, 'the cache served reads')
  assert.ok(secondReads > 100, 'snapshots changed during reads')
  assert.ok(acknowledged() > 1_000, 'the writers committed')
})

test('the rule: answers under equal snapshots are equal', async (t) => {
  const url = await counterDatabase(t)
  const { stop } = startWriters(t, url, 3)
  const result = await violations(t, url, { answersMax: 30_000, untilRed: false })
  await stop()
  t.diagnostic(`${result.answers} answers, ${result.violations} violations`)
  assert.equal(result.violations, 0)
})
