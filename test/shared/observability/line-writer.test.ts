import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { pbkdf2 } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { createLineWriter } from '#shared/observability/line-writer.ts'
import { eventually } from '../../support/eventually.ts'
import { testDirectory } from '../../support/region.ts'
import { smallDisk } from '../../support/small-disk.ts'

const root = join(import.meta.dirname, '..', '..', '..')

function writerTo(t: TestContext, path: string, waitingBytesMax = 2 ** 20) {
  const fd = openSync(path, 'a')
  const writer = createLineWriter({
    fd,
    bufferBytes: 100,
    flushMs: 20,
    waitingBytesMax,
    droppedLine: (count) => `dropped ${count}\n`,
  })
  t.after(async () => {
    await writer[Symbol.asyncDispose]()
    closeSync(fd)
  })
  return writer
}

test('lines are written whole and in order, after a short time and at exit', async (t) => {
  const path = join(await testDirectory(t), 'log')
  const writer = writerTo(t, path)
  writer.write('first\n')
  await eventually('the first line', async () => (await readFile(path, 'utf8')) === 'first\n')
  const lines = Array.from({ length: 5_000 }, (_, number) => `line ${number} ${'x'.repeat(number % 50)}\n`)
  for (const line of lines) writer.write(line)
  await writer[Symbol.asyncDispose]()
  const whole = `first\n${lines.join('')}`
  await eventually('all lines', async () => (await readFile(path, 'utf8')) === whole)
})

test('the end comes behind a write that is still in flight, however busy the thread pool is', async (t) => {
  const path = join(await testDirectory(t), 'log')
  const writer = writerTo(t, path)
  // The pool has four threads: the write waits for all of this.
  const busy = Array.from({ length: 8 }, () => promisify(pbkdf2)('x', 'y', 60_000, 32, 'sha512'))
  const first = `${'x'.repeat(200)}\n`
  writer.write(first)
  writer.write('last\n')
  await writer[Symbol.asyncDispose]()
  await Promise.all(busy)
  assert.equal(await readFile(path, 'utf8'), `${first}last\n`)
})

test('a full disk drops lines and ends nothing; with space again, logging resumes and reports the loss', async (t) => {
  const disk = await smallDisk(t, 2 ** 20)
  if (disk === undefined) return
  const path = join(disk.directory, 'log')
  const writer = writerTo(t, path, 1_000)
  writer.write('before\n')
  await eventually('the first line', async () => (await readFile(path, 'utf8')) === 'before\n')
  await disk.fill()
  // The file's last page takes some more; then nothing does.
  for (let count = 0; count < 200; count++) writer.write(`${'x'.repeat(99)}\n`)
  await disk.empty()
  await eventually('the log to go on', async () => {
    writer.write('after\n')
    return /\nafter\n/.test(await readFile(path, 'utf8'))
  })
  const lines = (await readFile(path, 'utf8')).trimEnd().split('\n')
  assert.ok(lines.some((line) => /^dropped \d+$/.test(line)))
  for (const line of lines) assert.match(line, /^(before|after|x{99}|dropped \d+)$/, 'whole')
})

test('a process whose log cannot be written keeps running, and ends when it is stopped', async () => {
  const source = `
    import { createLog } from '#shared/observability/log.ts'
    const { log, [Symbol.asyncDispose]: end } = createLog({ level: 'info' })
    for (let count = 0; count < 1000; count++) log.info({ count }, 'a line')
    setTimeout(async () => { await end(); process.stderr.write('ended well') }, 300)`
  const { code, stderr } = await new Promise<{ code: number; stderr: string }>((resolve) => {
    execFile(
      '/bin/sh',
      ['-c', 'exec "$0" --input-type=module --eval "$1" > /dev/full', process.execPath, source],
      { cwd: root, timeout: 20_000 },
      (error, _stdout, text) =>
        resolve({ code: error === null ? 0 : Number(error.code ?? -1), stderr: text }),
    )
  })
  assert.equal(stderr, 'ended well')
  assert.equal(code, 0)
})
