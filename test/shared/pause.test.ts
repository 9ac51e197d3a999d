import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { pause } from '#shared/pause.ts'

describe('pause', () => {
  test('an abort ends it early and is not an error, before or during it', async () => {
    const stop = new AbortController()
    const resting = pause(3_600_000, { signal: stop.signal })
    stop.abort()
    await resting
    await pause(3_600_000, { signal: stop.signal })
  })

  test('any other failure is an error', async () => {
    await assert.rejects(pause(1, { signal: {} as AbortSignal }), TypeError)
  })

  test('it keeps the process alive only with ref', () => {
    const file = join(import.meta.dirname, '../../shared/pause.ts')
    const run = (options: string) =>
      spawnSync(process.execPath, [
        '--input-type=module',
        '-e',
        `import { pause } from '${file}'; await pause(300, ${options}); process.stdout.write('over')`,
      ]).stdout.toString()
    assert.equal(run('{ ref: true }'), 'over')
    assert.equal(run('{}'), '')
  })
})
