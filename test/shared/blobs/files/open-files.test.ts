import assert from 'node:assert/strict'
import { readdir, readlink, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createOpenFiles } from '#shared/blobs/files/open-files.ts'
import { eventually } from '../../../support/eventually.ts'
import { testDirectory } from '../../../support/region.ts'

async function setUp(t: TestContext) {
  const path = join(await testDirectory(t), 'file')
  await writeFile(path, 'as it was')
  const files = createOpenFiles()
  t.after(() => files[Symbol.asyncDispose]())
  const read = async () => {
    using file = await files.open(path)
    const { bytesRead, buffer } = await file.handle.read(Buffer.alloc(100), 0, 100, 0)
    return buffer.subarray(0, bytesRead).toString()
  }
  return { path, files, read }
}

test('readers of one file share it, and it is closed soon after the last one', {
  skip: process.platform !== 'linux' && 'open files are read from /proc',
}, async (t) => {
  const { path, files, read } = await setUp(t)
  const opened = async () => {
    const links = (await readdir('/proc/self/fd')).map((fd) =>
      readlink(`/proc/self/fd/${fd}`).catch(() => ''),
    )
    return (await Promise.all(links)).filter((target) => target === path).length
  }
  await read()
  assert.deepEqual(await Promise.all([read(), read(), read()]), ['as it was', 'as it was', 'as it was'])
  assert.equal(await opened(), 1)
  assert.equal(files.stat(path)?.size, 9)
  await eventually('the file to be closed', async () => (await opened()) === 0)
  assert.equal(files.stat(path), undefined)
})

test('what happens to a file while it is open is seen at once: cut, removed, replaced', async (t) => {
  const { path, files, read } = await setUp(t)
  await read()
  await truncate(path, 2)
  assert.equal(files.stat(path)?.size, 2)
  await writeFile(`${path}.new`, 'another')
  await rename(`${path}.new`, path)
  assert.equal(files.stat(path), undefined, 'it is no longer the one that has the name')
  assert.equal(await read(), 'another')
  await rm(path)
  assert.equal(files.stat(path), undefined)
  await assert.rejects(read(), { code: 'ENOENT' })
})

test('a reader that began before the file was removed reads on', async (t) => {
  const { path, files } = await setUp(t)
  using file = await files.open(path)
  await rm(path)
  assert.equal(files.stat(path), undefined)
  const { bytesRead } = await file.handle.read(Buffer.alloc(100), 0, 100, 0)
  assert.equal(bytesRead, 9)
})
