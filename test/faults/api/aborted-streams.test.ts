// Aborts thousands of event streams at every stage.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { abortMany, countReads, quiet, STREAM, timers } from '../../support/aborted-streams.ts'
import { eventually } from '../../support/eventually.ts'
import { testNode } from '../../support/region.ts'

test('6,000 aborted streams leave no listener, no timer and no query behind', async (t) => {
  const node = await testNode(t, {
    env: { PORTOLAN_STREAMS_PER_ADDRESS_MAX: '10000', PORTOLAN_STREAMS_MAX: '10000' },
  })
  const reads = countReads(node)
  const before = timers()
  const answered = await abortMany(node.port, 6_000, (index) => (index % 10 === 0 ? STREAM + STREAM : STREAM))
  await quiet(reads)
  await eventually('the timers to be cleared', () => timers() <= before + 2)
  await eventually(
    'one log line for each stream',
    () => node.logLines.filter((line) => line.includes('"route":"events"')).length >= answered,
  )
  const levels = new Set(node.logLines.map((line) => (JSON.parse(line) as { level: string }).level))
  assert.deepEqual([...levels], ['info'], 'a disconnected client is not an error')
})
