import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startLoop } from '#shared/loop.ts'
import { eventually } from '../support/eventually.ts'

test('runs follow each other and never overlap, and a failure does not end the loop', async () => {
  let running = 0
  let runs = 0
  const errors: unknown[] = []
  {
    await using _ = startLoop({
      everyMs: 1,
      random: () => 0,
      run: async () => {
        assert.equal(running++, 0)
        await new Promise((turn) => setImmediate(turn))
        running--
        if (++runs % 2 === 0) throw new Error(`run ${runs}`)
      },
      onError: (error) => errors.push(error),
    })
    await eventually('six runs', () => runs >= 6)
  }
  const ended = runs
  await new Promise((turn) => setImmediate(turn))
  assert.equal(runs, ended, 'nothing runs after the end')
  assert.ok(errors.length >= 3)
})

test('disposing aborts the current run and waits for it', async () => {
  let finished = false
  const loop = startLoop({
    everyMs: 1_000_000,
    run: (signal) =>
      new Promise((resolve) => {
        signal.addEventListener('abort', () => {
          finished = true
          resolve()
        })
      }),
    onError: assert.fail,
  })
  await loop[Symbol.asyncDispose]()
  assert.equal(finished, true)
})

test('waking starts the next run at once', async () => {
  let runs = 0
  await using loop = startLoop({ everyMs: 1_000_000, run: async () => void runs++, onError: assert.fail })
  await eventually('the first run', () => runs === 1)
  await eventually('the second', () => {
    loop.wake()
    return runs >= 2
  })
})
