import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import { createServerLog } from '#shared/embedded/server-log.ts'
import { eventually } from '../../support/eventually.ts'
import { testDirectory } from '../../support/region.ts'
import { smallDisk } from '../../support/small-disk.ts'

test('a full disk loses only lines of the server log; with space again, lines are kept', async (t) => {
  const disk = await smallDisk(t, 2 ** 20)
  if (disk === undefined) return
  const path = join(disk.directory, 'log')
  const log = createServerLog(path)
  t.after(() => log.close())
  const output = new PassThrough()
  log.take(output)
  const kept = () => readFile(path, 'utf8').catch(() => '')
  output.write('before\n')
  await eventually('the first line', async () => (await kept()) === 'before\n')
  await disk.fill()
  for (let count = 0; count < 100; count++) output.write(`${'x'.repeat(4_095)}\n`)
  await eventually('the stream to be read', () => output.readableLength === 0)
  assert.match(log.tail(), /x{100}/, 'the end is in memory')
  await disk.empty()
  await eventually('lines to be kept again', async () => {
    output.write('after\n')
    return (await kept()).includes('after\n')
  })
})

test('a deleted directory ends nothing', async (t) => {
  const log = createServerLog(join(await testDirectory(t), 'gone', 'log'))
  const output = new PassThrough()
  log.take(output)
  output.write('a line\n')
  await eventually('the tail', () => log.tail() === 'a line')
  log.close()
})
